import { type Command, Option } from 'commander'
import { wrongUsage } from '../arguments.ts'
import { EXIT } from '../exit-codes.ts'
import { PROGRESS_FORMS, type ProgressForm, showProgress } from '../progress.ts'
import { statusLines } from '../status-text.ts'
import { follow } from './follow.ts'
import { ended } from './run.ts'
import type { SweepVerb } from './verb.ts'

interface Options {
  follow: boolean
  wait: boolean
  progress?: ProgressForm
}

export const status: SweepVerb = {
  name: 'status',
  define: (command) =>
    command
      .description('show how the latest run stands, whoever works on it')
      .option('--follow', 'go on showing it until it is over or paused, with the exit code of run', false)
      .option('--wait', 'with --follow: when it is paused, wait until it is resumed', false)
      .addOption(new Option('--progress <form>', 'with --follow: how it is shown').choices(PROGRESS_FORMS)),
  read(command: Command) {
    const options = command.opts<Options>()
    if (!options.follow && (options.wait || options.progress)) {
      throw wrongUsage('--wait and --progress belong to --follow.')
    }
    return async (context) => {
      const { name, control, output } = context
      const now = await control.status()
      if (!options.follow) {
        output.result<'status'>({ sweep: name, ...now }, () => statusLines(name, now))
        return EXIT.ok
      }
      const progress = showProgress(name, output, options.progress)
      const last = await follow(control, { progress, wait: options.wait, signal: output.closed })
      progress.stop()
      return last === null ? EXIT.outputClosed : ended(context, last)
    }
  },
}
