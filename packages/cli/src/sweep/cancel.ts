import type { Command } from 'commander'
import { EXIT } from '../exit-codes.ts'
import { refused, showSteered } from './steer.ts'
import type { SweepVerb } from './verb.ts'

export const cancel: SweepVerb = {
  name: 'cancel',
  define: (command) =>
    command
      .description(
        'end the open run; its records stay as they are, and the next run goes on with those that are pending',
      )
      .option('--reason <text>', 'told to whoever looks'),
  read(command: Command) {
    const { reason } = command.opts<{ reason?: string }>()
    return async (context) => {
      const { control } = context
      const cancelled = await control.cancel(reason ?? null)
      const { state } = await control.status()
      if (!cancelled && state !== 'cancelled') throw await refused(context, 'cancelled', '')
      await showSteered(context)
      return EXIT.ok
    }
  },
}
