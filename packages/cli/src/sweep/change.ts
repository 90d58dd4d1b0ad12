import type { Command } from 'commander'
import { limitsOf, withLimits, wrongUsage } from '../arguments.ts'
import { EXIT } from '../exit-codes.ts'
import { isFinal } from '../status-text.ts'
import { refused, showSteered } from './steer.ts'
import type { SweepVerb } from './verb.ts'

export const change: SweepVerb = {
  name: 'change',
  define: (command) =>
    withLimits(command).description(
      'change limits of the open run while it works; processes follow within a second',
    ),
  read(command: Command) {
    const changes = limitsOf(command)
    if (Object.keys(changes).length === 0) {
      throw wrongUsage('Say what to change: --concurrency, --rate, --budget-calls or --budget-spend.')
    }
    return async (context) => {
      const { control, command: line } = context
      if (isFinal(await control.status())) {
        throw await refused(
          context,
          'changed',
          `The next one takes limits too: ${line('run --concurrency N')}.`,
        )
      }
      await control.change(changes)
      await showSteered(context)
      return EXIT.ok
    }
  },
}
