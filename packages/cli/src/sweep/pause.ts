import type { Command } from 'commander'
import { EXIT } from '../exit-codes.ts'
import { refused, showSteered } from './steer.ts'
import type { SweepVerb } from './verb.ts'

export const pause: SweepVerb = {
  name: 'pause',
  define: (command) =>
    command
      .description('begin no more calls, in no process; those under way are marked')
      .option('--reason <text>', 'told to whoever looks'),
  read(command: Command) {
    const { reason } = command.opts<{ reason?: string }>()
    return async (context) => {
      const { control, command: line } = context
      const paused = await control.pause(reason ?? null)
      const { state } = await control.status()
      if (!paused && state !== 'paused' && state !== 'pausing') throw await refused(context, 'paused', '')
      await showSteered(context)
      context.output.note(`Go on with: ${line('resume')}.`)
      return EXIT.ok
    }
  },
}
