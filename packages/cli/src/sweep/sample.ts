import type { Command } from 'commander'
import type { SampledRecord } from 'triphase'
import { keyText, whole } from '../arguments.ts'
import { EXIT } from '../exit-codes.ts'
import { counted, grouped, inWords } from '../words.ts'
import type { SweepVerb } from './verb.ts'

const DEFAULT_COUNT = 5

export const sample: SweepVerb = {
  name: 'sample',
  define: (command) =>
    command
      .description('call the first pending records, here and once each, and show what comes of it')
      .argument('[count]', 'how many records', whole(1), DEFAULT_COUNT)
      .option('--commit', 'mark them, done or error (else the table stays as it is)', false),
  read(command: Command) {
    const count: number = command.processedArgs[0] ?? DEFAULT_COUNT
    const { commit } = command.opts<{ commit: boolean }>()
    return async ({ name, control, output }) => {
      const records = await control.sample(count, { commit })
      output.result<'sample'>({ sweep: name, committed: commit, records }, () => [
        ...records.flatMap(recordLines),
        summary(records, commit),
      ])
      return records.some(({ outcome }) => outcome === 'error') ? EXIT.recordErrors : EXIT.ok
    }
  },
}

function recordLines({ key, outcome, result, error, durationMs, spent }: SampledRecord): string[] {
  const said = outcome === 'done' ? textOf(result) : (error ?? '')
  const cost = spent > 0 ? `, spent ${grouped(spent)}` : ''
  return [
    `${keyText(key)}: ${outcome} in ${inWords(durationMs)}${cost}`,
    ...(said === '' ? [] : [`  ${said}`]),
  ]
}

function textOf(result: unknown): string {
  return typeof result === 'string' ? result : (JSON.stringify(result) ?? '')
}

function summary(records: readonly SampledRecord[], commit: boolean): string {
  if (records.length === 0) return 'No record is pending.'
  const marked = records.filter((record) => record.marked).length
  const kept = commit ? `${grouped(marked)} marked` : 'nothing was written (--commit marks them)'
  return `${counted(records.length, 'record')} called, ${kept}.`
}
