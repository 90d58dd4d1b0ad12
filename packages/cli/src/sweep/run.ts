import { Writable } from 'node:stream'
import { type Command, Option } from 'commander'
import type { StartOptions, Sweep, SweepStatus } from 'triphase'
import { createLog, logTelemetry } from 'triphase/log'
import { run as runEngine } from 'triphase/runner'
import { limitsOf, withLimits } from '../arguments.ts'
import type { ConfiguredEngine } from '../config-file.ts'
import { EXIT, type ExitCode } from '../exit-codes.ts'
import { PROGRESS_FORMS, type Progress, type ProgressForm, showProgress } from '../progress.ts'
import { exitCodeOf, stateLine, statusLines } from '../status-text.ts'
import { counted, grouped, inWords } from '../words.ts'
import { follow } from './follow.ts'
import type { SweepContext, SweepVerb } from './verb.ts'

interface Options {
  detach: boolean
  wait: boolean
  progress?: ProgressForm
}

/** Page jobs at a time in this process, where the config names no such queue. They share the run's calls. */
const PAGES_AT_A_TIME = 4

export const run: SweepVerb = {
  name: 'run',
  define: (command) =>
    withLimits(command)
      .description('begin a run or go on with the open one, and work on it here until it is over')
      .option('--detach', 'only ask for it: processes that work on its queue do the rest', false)
      .option('--wait', 'when it is paused, wait until it is resumed', false)
      .addOption(new Option('--progress <form>', 'how it is shown').choices(PROGRESS_FORMS)),
  read(command: Command) {
    const { detach, wait, progress } = command.opts<Options>()
    const changes = limitsOf(command)
    return async (context) => {
      const { control, output, name } = context
      await control.run(changes)
      const status = await control.status()
      if (detach) return detached(context, status)
      if (status.state === 'paused' && !wait) return ended(context, status)
      return work(context, showProgress(name, output, progress), wait)
    }
  },
}

function detached({ name, output, command, sweep }: SweepContext, status: SweepStatus): ExitCode {
  output.result<'status'>({ sweep: name, ...status }, () => statusLines(name, status))
  if (status.state === 'interrupted') {
    output.note(
      `No process works on its queue (${queueOf(sweep)}) at the moment: triphase work starts one, and ${command('run')} works here.`,
    )
  }
  return status.state === 'paused' ? EXIT.paused : EXIT.ok
}

async function work(context: SweepContext, progress: Progress, wait: boolean): Promise<ExitCode> {
  const { engine, control, sweep, output } = context
  const endLog = logTelemetry(engine.telemetry, warnings(output.json, progress))
  let last: SweepStatus | null = null
  try {
    const signal = await runEngine(engine, {
      queues: queuesFor(engine, sweep),
      onSignal: () =>
        progress.note('Stopping: calls under way may finish, and are marked. Again ends at once.'),
      until: async (stopped) => {
        const over = AbortSignal.any([stopped, output.closed])
        last = await follow(control, { progress, wait, signal: over })
      },
    })
    progress.stop()
    if (signal !== null) return interrupted(context, signal)
    return last === null ? EXIT.outputClosed : ended(context, last)
  } finally {
    progress.stop()
    endLog()
  }
}

function interrupted({ output, name, command }: SweepContext, signal: NodeJS.Signals): ExitCode {
  output.note(
    `${name}: stopped here; the run stays open. Go on with: ${command('run')}. Processes that work on its queue go on by themselves; ${command('pause')} stops them too.`,
  )
  return signal === 'SIGINT' ? EXIT.interrupted : EXIT.terminated
}

/** Tells how it ended, and what to do now. */
export function ended({ output, name, command }: SweepContext, status: SweepStatus): ExitCode {
  const code = exitCodeOf(status)
  const { done, errors, calls, spent, activeMs } = status
  if (!output.json) {
    const cost = spent > 0 ? `, ${grouped(spent)} spent` : ''
    output.line(
      `${stateLine(name, status)}: ${grouped(done)} done, ${counted(errors, 'error')} in ${inWords(activeMs)}, ${counted(calls, 'call')}${cost}`,
    )
  }
  if (code === EXIT.paused) output.note(`Go on with: ${command('resume')}, then ${command('run')}.`)
  if (errors > 0) {
    output.note(
      `Why: ${command('errors')}. Once more: ${command('retry-errors --all')}, then ${command('run')}.`,
    )
  }
  return code
}

/** The sweep's queue alone, as the config has it. */
function queuesFor(engine: ConfiguredEngine, sweep: Sweep): NonNullable<StartOptions['queues']> {
  const queue = queueOf(sweep)
  const configured = engine.queues.get(queue)
  if (!configured) return { [queue]: PAGES_AT_A_TIME }
  return { [queue]: { concurrency: configured.concurrency, timeout: configured.timeoutMs } }
}

function queueOf(sweep: Sweep): string {
  return sweep.options.queue ?? 'default'
}

function warnings(json: boolean, progress: Progress): ReturnType<typeof createLog> {
  const destination = new Writable({
    decodeStrings: false,
    write(chunk, _encoding, done) {
      progress.beside(String(chunk))
      done()
    },
  })
  return createLog({ level: 'warn', format: json ? 'json' : 'human', destination })
}
