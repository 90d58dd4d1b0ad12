import type { Command } from 'commander'
import type { Duration, SampledRecord } from 'triphase'
import { duration, positive, whole, wrongUsage } from '../arguments.ts'
import { EXIT } from '../exit-codes.ts'
import { counted, grouped, inWords } from '../words.ts'
import type { SweepVerb } from './verb.ts'

interface Options {
  ms?: Duration
  cost?: number
  sample?: number
}

export const plan: SweepVerb = {
  name: 'plan',
  define: (command) =>
    command
      .description('count the records, and estimate time and cost; calls nothing unless --sample is given')
      .option('--ms <duration>', "what one call takes: milliseconds, or '1.5s'", duration)
      .option('--cost <amount>', 'what one call costs', positive)
      .option(
        '--sample <records>',
        'take both from real calls for so many records, which are not marked',
        whole(1),
      ),
  read(command: Command) {
    const { ms, cost, sample } = command.opts<Options>()
    if (sample !== undefined && (ms !== undefined || cost !== undefined)) {
      throw wrongUsage('--sample measures what --ms and --cost say: give one or the other.')
    }
    return async ({ name, control, output }) => {
      const unit = sample === undefined ? { ms, cost } : averages(await control.sample(sample))
      const given = {
        ...(unit.ms === undefined ? {} : { ms: unit.ms }),
        ...(unit.cost === undefined ? {} : { cost: unit.cost }),
      }
      const planned = await control.plan(given)
      output.result<'plan'>({ sweep: name, ...planned }, () => {
        const { pending, done, errors, estimatedMs, estimatedCost } = planned
        return [
          `${name}: ${grouped(pending)} pending, ${grouped(done)} done, ${counted(errors, 'error')}`,
          ...(estimatedMs === null ? [] : [`  time: about ${inWords(estimatedMs)}`]),
          ...(estimatedCost === null ? [] : [`  cost: about ${grouped(estimatedCost)}`]),
        ]
      })
      return EXIT.ok
    }
  },
}

function averages(records: readonly SampledRecord[]): {
  ms?: Duration | undefined
  cost?: number | undefined
} {
  if (records.length === 0) return {}
  const average = (of: (record: SampledRecord) => number) =>
    records.reduce((sum, record) => sum + of(record), 0) / records.length
  const cost = average(({ spent }) => spent)
  return { ms: average(({ durationMs }) => durationMs), cost: cost > 0 ? cost : undefined }
}
