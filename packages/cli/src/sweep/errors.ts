import type { Command } from 'commander'
import { keyOf, keyText, whole, wrongUsage } from '../arguments.ts'
import { EXIT } from '../exit-codes.ts'
import { counted, grouped } from '../words.ts'
import type { SweepContext, SweepVerb } from './verb.ts'

interface Options {
  group?: string
  after?: string[]
  limit?: number
}

const GROUPS = 50
const RECORDS = 100

export const errors: SweepVerb = {
  name: 'errors',
  define: (command) =>
    command
      .description('show the errors in the table by what they say, or the records of one group')
      .option('--group <group>', 'show the records of this group')
      .option('--after <key>', 'with --group: go on after this record', keyOf)
      .option('--limit <count>', `at most so many groups (${GROUPS}) or records (${RECORDS})`, whole(1)),
  read(command: Command) {
    const { group, after, limit } = command.opts<Options>()
    if (after && group === undefined) throw wrongUsage('--after belongs to --group.')
    return async (context) => {
      if (group === undefined) await showGroups(context, limit ?? GROUPS)
      else await showRecords(context, group, after, limit ?? RECORDS)
      return EXIT.ok
    }
  },
}

async function showGroups({ name, control, output, command }: SweepContext, limit: number): Promise<void> {
  const groups = await control.errorGroups(limit)
  output.result<'errors'>({ sweep: name, groups }, () => {
    if (groups.length === 0) return [`${name}: no record is marked as an error.`]
    const width = Math.max(...groups.map(({ count }) => grouped(count).length))
    return groups.flatMap(({ group, count, pattern, example, exampleKey }) => [
      `${grouped(count).padStart(width)}  ${group}  ${pattern}`,
      `${' '.repeat(width)}  such as ${keyText(exampleKey)}: ${example}`,
    ])
  })
  if (groups.length > 0) {
    output.note(
      `The records of one: ${command('errors --group GROUP')}. Once more: ${command('retry-errors --group GROUP')}.`,
    )
  }
}

async function showRecords(
  { name, control, output }: SweepContext,
  group: string,
  after: string[] | undefined,
  limit: number,
): Promise<void> {
  const found = await control.errors({ group, limit, ...(after ? { after } : {}) })
  const next = found.length === limit ? (found.at(-1)?.key ?? null) : null
  output.result<'errorRecords'>({ sweep: name, group, errors: found, next }, () =>
    found.length === 0
      ? [`${name}: no ${after ? 'further ' : ''}record is marked with an error of the group ${group}.`]
      : found.map(({ key, message }) => `${keyText(key)}: ${message ?? ''}`),
  )
  if (next) output.note(`${counted(found.length, 'record')}; there may be more: --after '${keyText(next)}'.`)
}
