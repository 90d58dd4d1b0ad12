import type pg from 'pg'
import {
  type AbandonContext,
  type CallContext,
  type CommitContext,
  defineStagedTask,
  Permanent,
  type PrepareContext,
  RetryAfter,
  type StagedTaskDefinition,
  type Task,
  type TaskOptions,
  unchecked,
} from '../../src/index.ts'

export interface NoteInput {
  key: string
}

interface Prepared {
  id: number
}

type Definition = StagedTaskDefinition<NoteInput, NoteInput, Prepared, unknown, unknown, pg.PoolClient>

/** What a test does within a phase, after the phase's own statement. */
export interface NoteHooks {
  /** What it returns, if anything, is what `prepare` returns. */
  prepare?: (context: PrepareContext<NoteInput, pg.PoolClient>, prepared: Prepared) => Promise<unknown>
  /** Instead of one call for the note's key. */
  call?: (context: CallContext<NoteInput, Prepared>) => Promise<unknown>
  /** What it returns is the job's result. */
  commit?: (context: CommitContext<NoteInput, Prepared, unknown, pg.PoolClient>) => Promise<unknown>
  abandon?: (context: AbandonContext<NoteInput, pg.PoolClient>) => Promise<unknown>
  answer?: Definition['answer']
}

export interface NoteTaskOptions extends NoteHooks, TaskOptions {
  /** URL of the counting API. */
  api: string
  /** The application's table: one row a key. */
  table: string
}

/** The application of these tests: a note is found or created, an API is paid for its text, the text is written down. */
export function noteTask({
  api,
  table,
  prepare,
  call,
  commit,
  abandon,
  answer,
  ...options
}: NoteTaskOptions) {
  const definition: Definition = {
    name: 'note',
    input: unchecked<NoteInput>(),
    backoff: { initial: '20ms', max: '20ms' },
    ...options,
    ...(answer ? { answer } : {}),
    prepare: async (context) => {
      const { rows } = await context.tx.query<Prepared>(
        `INSERT INTO ${table} AS note (key) VALUES ($1)
         ON CONFLICT (key) DO UPDATE SET prepares = note.prepares + 1 RETURNING id`,
        [context.input.key],
      )
      const prepared = rows[0] as Prepared
      return ((await prepare?.(context, prepared)) ?? prepared) as Prepared
    },
    call: call ?? ((context) => pay(api, context.input.key, context)),
    commit: async (context) => {
      const text = JSON.stringify(context.answer)
      await context.tx.query(
        `UPDATE ${table} SET status = 'completed', text = $2, commits = commits + 1 WHERE id = $1`,
        [context.prepared.id, text],
      )
      return commit ? commit(context) : { note: context.prepared.id }
    },
    ...(abandon ? { abandon: (context) => fail(table, context, abandon) } : {}),
  }
  return defineStagedTask(definition) as Task<NoteInput, pg.PoolClient>
}

async function fail(
  table: string,
  context: AbandonContext<NoteInput, pg.PoolClient>,
  then: NonNullable<NoteHooks['abandon']>,
): Promise<void> {
  const { tx, input } = context
  await tx.query(`UPDATE ${table} SET status = 'failed', commits = commits + 1 WHERE key = $1`, [input.key])
  await then(context)
}

/** One call of the API. */
export async function pay(
  api: string,
  key: string,
  { signal, idempotencyKey }: { signal?: AbortSignal; idempotencyKey: string },
): Promise<unknown> {
  const response = await fetch(`${api}/call`, {
    method: 'POST',
    headers: { 'idempotency-key': idempotencyKey },
    body: JSON.stringify({ key }),
    signal: signal ?? null,
  })
  if (response.status === 429) throw new RetryAfter(Number(response.headers.get('retry-after')) * 1000)
  if (!response.ok) throw new Error(`the API answered ${response.status}`)
  return ((await response.json()) as { answer: unknown }).answer
}

/** A call in steps: each makes one call of the API for its own name. */
export function callInSteps(api: string, ...steps: string[]): NonNullable<NoteHooks['call']> {
  return async (context) => {
    const answers: unknown[] = []
    for (const step of steps) answers.push(await context.step(step, () => pay(api, step, context)))
    return answers
  }
}

/** A call that does not listen to its signal; `late` is told when the signal has fired. */
export function deafCall(api: string, late?: () => void): NonNullable<NoteHooks['call']> {
  return async ({ signal, input, idempotencyKey }) => {
    if (late) signal.addEventListener('abort', late)
    return pay(api, input.key, { idempotencyKey })
  }
}

/** A call that is paid for and cannot succeed. */
export function refusedCall(api: string): NonNullable<NoteHooks['call']> {
  return async (context) => {
    await pay(api, context.input.key, context)
    throw new Permanent('the API refuses this note')
  }
}
