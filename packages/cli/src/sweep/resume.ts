import type { Command } from 'commander'
import { limitsOf, withLimits } from '../arguments.ts'
import { EXIT } from '../exit-codes.ts'
import { isFinal } from '../status-text.ts'
import { refused, showSteered } from './steer.ts'
import type { SweepVerb } from './verb.ts'

export const resume: SweepVerb = {
  name: 'resume',
  define: (command) =>
    withLimits(command).description('let a paused run go on, with other limits where they are given'),
  read(command: Command) {
    const changes = limitsOf(command)
    return async (context) => {
      const { control, output, command: line } = context
      const before = await control.status()
      if (isFinal(before)) throw await refused(context, 'resumed', `Another one begins with: ${line('run')}.`)
      await control.resume(changes)
      const { state } = await showSteered(context)
      if (state === 'interrupted') output.note(`No process works on it at the moment: ${line('run')} does.`)
      return EXIT.ok
    }
  },
}
