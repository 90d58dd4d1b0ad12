import { access, constants, realpath, stat } from 'node:fs/promises'
import path from 'node:path'
import { columnsOf, exportFile, FileFaults, type FileSweep, loadFile } from '@triphase/files'
import { TriphaseError } from 'triphase'
import { describeLines, KINDS, type ListQuestion } from './describe-lines.ts'
import type { ExitCode } from './interrupt.ts'
import { followRun, retryErrors, runSweepCommand, type SweepRun, troubleLines } from './run-sweep.ts'
import type { Settings } from './settings.ts'
import { printable } from './terminal.ts'
import { counted, inWords } from './words.ts'

export interface FilesOptions {
  /** `url`, `path` or `text`, and the column's name where it is another one: `url=image_link`. */
  readonly column: string
  /** Default: beside the list, `NAME.results.csv`. */
  readonly output?: string
  readonly prompt?: string
  readonly delimiter?: string
  /** The list has changed: begins anew with all of it. */
  readonly replace?: boolean
  readonly retryErrors?: boolean
}

/** A list or a command line that cannot be used; the message says what to do. */
class ListError extends Error {
  readonly code: string

  constructor(code: string, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'ListError'
    this.code = code
  }
}

const PROMPTS = {
  image: 'List what can be seen in this image: people, animals, vehicles, objects, and text.',
  text: 'List what this text is about, with a sentence for each subject.',
}
const SHOWN_FAULTS = 20

/**
 * Sends each line of a person's own list through the model, and writes the list again with what came of it. Killed at any
 * point and run again, it does the rest.
 *
 * @returns 0 when all lines are done, 1 when some are not, 130 or 143 when a signal ended it.
 * @throws what keeps it from starting: a list with faults, a column that is not there, a place that cannot be written.
 */
export async function files(
  list: string,
  options: FilesOptions,
  settings: Settings,
  out: NodeJS.WriteStream,
): Promise<ExitCode> {
  const question = await questionOf(list, options, settings)
  const output = await outputFor(question.file, options.output)
  const work = (run: SweepRun<FileSweep>) => describeList(run, question, output, options)
  return runSweepCommand(
    { settings, noun: 'line', define: (parts) => describeLines(question, parts) as FileSweep, work },
    out,
  )
}

async function describeList(
  run: SweepRun<FileSweep>,
  { file }: ListQuestion,
  output: string,
  options: FilesOptions,
): Promise<boolean> {
  const { backend, whenReachable, say } = run
  const began = performance.now()
  const { lines, loaded } = await load(run, file, options)
  if (options.retryErrors) await retryErrors(run)
  const known = loaded ? '' : ', known from before'
  const about = `model ${backend.model.name}, database ${backend.databaseDescription}`
  say(`${counted(lines, 'line')} of ${printable(path.basename(file))}${known}, ${about}`)
  await backend.start()
  const status = await followRun(run)
  run.progress.stop()
  const { signal } = run
  const counts = await whenReachable(() => exportFile(backend, backend.sweep, output, { signal }))
  const parts = [
    `${counts.done} done`,
    ...(counts.errors > 0 ? [`${counts.errors} failed`] : []),
    ...(counts.pending > 0 ? [`${counts.pending} left`] : []),
  ]
  const seconds = inWords((performance.now() - began) / 1_000)
  say('', `${counted(counts.lines, 'line')}: ${parts.join(', ')}, in ${seconds}.`)
  say(`The results are in ${printable(output)}`)
  say(...(await troubleLines(run, status, counts)))
  return counts.errors === 0 && counts.pending === 0
}

async function load(
  { backend, signal, whenReachable }: SweepRun<FileSweep>,
  file: string,
  { replace = false, delimiter }: FilesOptions,
): Promise<{ lines: number; loaded: boolean }> {
  const name = printable(path.basename(file))
  try {
    if (replace) await whenReachable(() => endOpenRun(backend.engine.sweep(backend.sweep)))
    const options = { replace, signal, ...(delimiter === undefined ? {} : { delimiter }) }
    return await whenReachable(() => loadFile(backend, backend.sweep, file, options))
  } catch (error) {
    if (error instanceof FileFaults) throw faultsIn(name, error)
    if (!(error instanceof TriphaseError) || error.code !== 'FILE_LOADED') throw error
    throw new ListError(
      error.code,
      `${name} has changed since it was begun. Run the same command with --replace to begin anew with all of its lines, or undo the change.`,
      { cause: error },
    )
  }
}

/** Somebody who begins anew has no use for what is left of a run. */
async function endOpenRun(control: ReturnType<SweepRun['backend']['engine']['sweep']>): Promise<void> {
  await control.cancel('its list was replaced').catch((error: unknown) => {
    if (!(error instanceof TriphaseError && error.code === 'NO_SWEEP_RUN')) throw error
  })
}

function faultsIn(name: string, { faults, count, stoppedAt, code }: FileFaults): ListError {
  const shown = faults.slice(0, SHOWN_FAULTS)
  const lines = [
    `${name} cannot be used: ${counted(count, 'line')} with faults. Nothing was loaded and nothing was called.`,
    ...shown.map(({ line, message }) => `  line ${line}: ${message}`),
    ...(count > shown.length ? [`  and ${count - shown.length} more`] : []),
    ...(stoppedAt === null ? [] : [`  what follows line ${stoppedAt} was not read`]),
    'Correct them and run the same command again.',
  ]
  return new ListError(code, lines.join('\n'))
}

async function questionOf(
  list: string,
  { column, delimiter, prompt }: FilesOptions,
  { model }: Settings,
): Promise<ListQuestion> {
  const [given = '', ...rest] = column.split('=')
  const kind = KINDS.find((one) => one === given)
  if (!kind) {
    throw new ListError(
      'COLUMN_KIND',
      `--column must be url, path or text, with the column's name where it has another: --column url=image_link. It is ${JSON.stringify(column)}.`,
    )
  }
  if (kind === 'text' && model.provider === 'detector') {
    throw new ListError(
      'MODEL_READS_NO_TEXT',
      'The local detector looks at images and reads no text. Set SCOUT_MODEL.',
    )
  }
  const file = path.resolve(list)
  const name = rest.join('=') || kind
  const columns = await columnsOf(file, delimiter === undefined ? {} : { delimiter }).catch(
    (error: unknown) => {
      throw error instanceof FileFaults ? faultsIn(path.basename(file), error) : error
    },
  )
  if (columns && !columns.includes(name)) {
    const known = columns.map((one) => printable(one)).join(', ')
    throw new ListError(
      'COLUMN_MISSING',
      `${list} has no column ${name}; it has: ${known || 'none'}. Say which one it is: --column ${kind}=NAME${
        columns.length === 1 ? ', or how columns are separated: --delimiter' : ''
      }.`,
    )
  }
  return {
    file: await realpath(file),
    kind,
    column: name,
    prompt: prompt ?? PROMPTS[kind === 'text' ? 'text' : 'image'],
  }
}

/** Refused before a call is paid for whose answer nobody could read. */
async function outputFor(file: string, given: string | undefined): Promise<string> {
  const { dir, name, ext } = path.parse(file)
  const output = path.resolve(given ?? path.join(dir, `${name}.results${ext}`))
  if ((await realpath(output).catch(() => output)) === file) {
    throw new ListError(
      'OUTPUT_IS_INPUT',
      'The results would take the place of the list. Give --output another file.',
    )
  }
  if ((await stat(output).catch(() => null))?.isDirectory()) {
    throw new ListError('OUTPUT_IS_FOLDER', `${output} is a folder. Give --output a file in it.`)
  }
  const folder = path.dirname(output)
  await access(folder, constants.W_OK).catch((cause: unknown) => {
    const message = `The results cannot be written into ${folder}. Give --output a file in a folder that exists and can be written.`
    throw new ListError('OUTPUT_UNWRITABLE', message, { cause })
  })
  return output
}
