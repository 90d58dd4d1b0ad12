import { EXIT } from '../exit-codes.ts'
import type { SweepVerb } from './verb.ts'

export const check: SweepVerb = {
  name: 'check',
  define: (command) => command.description('name everything that keeps the table from being swept'),
  read:
    () =>
    async ({ name, control, output, command }) => {
      const faults = await control.check()
      output.result<'check'>({ sweep: name, fits: faults.length === 0, faults }, () =>
        faults.length === 0
          ? [`${name}: its table fits.`]
          : [`${name} cannot run:`, ...faults.map((fault) => `  ${fault}`)],
      )
      if (faults.length === 0) return EXIT.ok
      output.note(`What is missing is added by: ${command('migration')}.`)
      return EXIT.database
    },
}
