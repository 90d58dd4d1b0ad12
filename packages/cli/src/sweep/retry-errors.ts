import type { Command } from 'commander'
import { keyOf, wrongUsage } from '../arguments.ts'
import { EXIT } from '../exit-codes.ts'
import { counted } from '../words.ts'
import type { SweepVerb } from './verb.ts'

interface Options {
  all?: true
  group?: string
  key?: string[][]
}

type Which = { all: true } | { group: string } | { keys: string[][] }

export const retryErrors: SweepVerb = {
  name: 'retry-errors',
  define: (command) =>
    command
      .description(
        'make records that are marked as errors pending again; an open run finds them, or the next',
      )
      .option('--all', 'all of them')
      .option('--group <group>', 'those of one group, as errors shows it')
      .option('--key <key...>', `single records; a key of several columns as '["17","de"]'`, collected),
  read(command: Command) {
    const which = whichOf(command.opts<Options>())
    return async ({ name, control, output, command: line }) => {
      const retried = await control.retryErrors(which)
      output.result<'retryErrors'>({ sweep: name, retried }, () => [
        `${name}: ${counted(retried, 'record')} ${retried === 1 ? 'is' : 'are'} pending again.`,
      ])
      if (retried > 0) output.note(`Unless a run is at work: ${line('run')}.`)
      return EXIT.ok
    }
  },
}

function collected(text: string, before: string[][] = []): string[][] {
  return [...before, keyOf(text)]
}

function whichOf({ all, group, key }: Options): Which {
  const given: Which[] = [
    ...(all ? [{ all } as const] : []),
    ...(group === undefined ? [] : [{ group }]),
    ...(key ? [{ keys: key }] : []),
  ]
  const [only] = given
  if (only && given.length === 1) return only
  throw wrongUsage('Say which: one of --all, --group GROUP or --key KEY….')
}
