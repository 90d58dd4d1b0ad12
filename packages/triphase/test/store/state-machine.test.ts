import fc from 'fast-check'
import { expect, test } from 'vitest'
import { finishJobs, rescheduleJobs } from '../../src/store/ack.ts'
import { cancelJob, settleCancelRequests } from '../../src/store/cancel.ts'
import type { Database } from '../../src/store/database.ts'
import { deregisterProcess } from '../../src/store/heartbeat.ts'
import { insertJobs, insertUniqueJobs, onEnginePool } from '../../src/store/insert.ts'
import { rescueOrphans, rescueProcess } from '../../src/store/rescue.ts'
import { retryJob } from '../../src/store/retry-job.ts'
import { stageDueJobs } from '../../src/store/stage.ts'
import { useEngines } from '../support/engines.ts'
import { ackOf, claim, insertProcess, newJob } from '../support/store-jobs.ts'
import { isFinal, JobModel, type ModelJob, seenJobs } from './job-model.ts'

const bench = useEngines()

type Step = (model: JobModel, database: Database) => Promise<void>
const FAR = new Date(Date.now() + 36_500 * 86_400_000)

interface Command {
  run: Step
  toString(): string
}

/** Does the same to the model and to the database, and compares all of both afterwards. */
function command(name: string, run: Step): Command {
  return {
    toString: () => name,
    async run(model, database) {
      await run(model, database)
      await compare(model, database)
    },
  }
}

async function compare(model: JobModel, database: Database): Promise<void> {
  const seen = await seenJobs(database)
  expect(seen.map(({ place: _place, position: _position, ...job }) => job)).toEqual(
    model.jobs.toSorted((a, b) => Number(a.id) - Number(b.id)),
  )
  for (const { place, state } of seen) {
    expect(place).toBe(isFinal({ state } as ModelJob) ? 'history' : 'job')
  }
  const keys = await database.query<{ key: string; job_id: string }>(
    'SELECT key, job_id FROM triphase.job_unique',
  )
  expect(new Map(keys.map(({ key, job_id }) => [key, job_id]))).toEqual(model.keys)
  const requests = await database.query<{ id: string }>('SELECT job_id AS id FROM triphase.cancel_request')
  expect(new Set(requests.map(({ id }) => id))).toEqual(model.requests)
}

/** A command about one job, if there is any. */
function about(
  name: string,
  index: number,
  run: (job: ModelJob, model: JobModel, database: Database) => Promise<void>,
) {
  return command(`${name}(${index})`, async (model, database) => {
    const job = model.pick(index)
    if (job) await run(job, model, database)
  })
}

/** A command about one job that is executing, if there is any. */
function ofClaim(
  name: string,
  index: number,
  run: (job: ModelJob, model: JobModel, database: Database) => Promise<void>,
) {
  return command(`${name}(${index})`, async (model, database) => {
    const executing = model.jobs.filter(({ state }) => state === 'executing')
    const job = executing[index % Math.max(1, executing.length)] ?? model.pick(index)
    if (job) await run(job, model, database)
  })
}

interface NewJobChoice {
  later: boolean
  priority: number
  maxCrashes: number
  key: string | null
}

const enqueue = (choice: NewJobChoice) =>
  command(`enqueue(${JSON.stringify(choice)})`, async (model, database) => {
    const { later, key, ...details } = choice
    const job = newJob({ ...details, uniqueKey: key, delayMs: later ? 3_600_000 : 0 })
    const insert = key === null ? insertJobs : insertUniqueJobs
    const [inserted] = await insert(onEnginePool(database), [job])
    const holder = key === null ? undefined : model.keys.get(key)
    expect(inserted!.created).toBe(holder === undefined)
    if (holder === undefined)
      model.insert({ ...details, key, id: inserted!.id, state: later ? 'scheduled' : 'available' })
    else expect(inserted!.id).toBe(holder)
  })

/** What a claim must bring: one suspect at most, and the others by priority and position. */
async function nextInLine(database: Database, limit: number): Promise<string[]> {
  const available = (await seenJobs(database))
    .filter(({ state }) => state === 'available')
    .toSorted((a, b) => a.priority - b.priority || a.position - b.position)
  const suspects = available.filter(({ crashCount }) => crashCount >= 2).slice(0, 1)
  const ordinary = available.filter(({ crashCount }) => crashCount < 2)
  return [...suspects, ...ordinary].slice(0, limit).map(({ id }) => id)
}

const claiming = (limit: number, index: number) =>
  command(`claim(${limit}, ${index})`, async (model, database) => {
    const processId = model.processes[index % model.processes.length]!
    const expected = await nextInLine(database, limit)
    const claimed = await claim(database, processId, limit)
    expect(claimed.map(({ id }) => id).toSorted()).toEqual(expected.toSorted())
    for (const { id, claimNo } of claimed) {
      const job = model.jobs.find((candidate) => candidate.id === id)!
      model.claim(job, processId)
      expect(claimNo).toBe(job.claimNo)
    }
  })

const finish = (index: number, state: 'completed' | 'cancelled' | 'discarded', behind: number) =>
  ofClaim(`finish ${state} -${behind}`, index, async (job, model, database) => {
    const ack = ackOf({ id: job.id, claimNo: job.claimNo - behind }, state, { result: '1' })
    const holds = job.state === 'executing' && behind === 0
    expect((await finishJobs(onEnginePool(database), [ack])).has(job.id)).toBe(holds)
    if (holds) model.finish(job, state)
  })

const waitAgain = (
  index: number,
  state: 'retryable' | 'scheduled' | 'available',
  counts: boolean,
  behind: number,
) =>
  ofClaim(`${state} ${counts} -${behind}`, index, async (job, model, database) => {
    const details = { delayMs: state === 'available' ? 0 : 3_600_000, countsAsAttempt: counts }
    const ack = ackOf({ id: job.id, claimNo: job.claimNo - behind }, state, details)
    const holds = job.state === 'executing' && behind === 0
    expect((await rescheduleJobs(onEnginePool(database), [ack])).has(job.id)).toBe(holds)
    if (holds) model.waitAgain(job, state, counts)
  })

const cancelling = (index: number) =>
  about('cancel', index, async (job, model, database) => {
    expect(await cancelJob(database, job.id, '{}')).toBe(model.cancel(job))
  })

const retry = (index: number) =>
  about('retry', index, async (job, model, database) => {
    expect((await retryJob(database, job.id)) !== null).toBe(model.retry(job))
  })

const settle = command('settle', async (model, database) => {
  await settleCancelRequests(database, '{}')
  model.settleRequests()
})

const stage = command('stage', async (model, database) => {
  await stageDueJobs(database, 1_000, FAR)
  for (const job of model.jobs)
    if (job.state === 'scheduled' || job.state === 'retryable') job.state = 'available'
})

const orphans = command('orphans', async (_model, database) => {
  expect(await rescueOrphans(database)).toEqual([])
})

const end = (how: 'rescue' | 'deregister', index: number) =>
  command(`${how}(${index})`, async (model, database) => {
    const id = model.processes[index % model.processes.length]!
    if (how === 'rescue') await rescueProcess(database, { id, beat: '0' } as never, '{}')
    else await deregisterProcess(database, id)
    model[how](id)
    model.processes.push(await insertProcess(database))
  })

const index = fc.nat(7)
const behind = fc.constantFrom(0, 0, 0, 0, 1, 2, -1)
const choice = fc.record({
  later: fc.boolean(),
  priority: fc.nat(3),
  maxCrashes: fc.constantFrom(1, 3, 4),
  key: fc.constantFrom(null, null, 'a', 'b'),
})
const final = fc.constantFrom('completed', 'cancelled', 'discarded')
const waiting = fc.constantFrom('retryable', 'scheduled', 'available')
const ending = fc.constantFrom('rescue', 'rescue', 'deregister')

const anyCommand = fc.oneof(
  { weight: 3, arbitrary: choice.map(enqueue) },
  { weight: 4, arbitrary: fc.tuple(fc.integer({ min: 1, max: 4 }), index).map((args) => claiming(...args)) },
  { weight: 2, arbitrary: fc.tuple(index, final, behind).map((args) => finish(...args)) },
  { weight: 2, arbitrary: fc.tuple(index, waiting, fc.boolean(), behind).map((args) => waitAgain(...args)) },
  { weight: 2, arbitrary: fc.tuple(ending, index).map((args) => end(...args)) },
  { weight: 1, arbitrary: index.map(cancelling) },
  { weight: 1, arbitrary: index.map(retry) },
  { weight: 2, arbitrary: fc.constant(stage) },
  { weight: 1, arbitrary: fc.constantFrom(settle, orphans) },
)

test('whatever happens to jobs, in any order, the tables say what the model says', async () => {
  const { database } = bench.schema
  const sequences = fc.array(anyCommand, { maxLength: 80, size: 'max' })
  await fc.assert(
    fc.asyncProperty(sequences, async (commands) => {
      await bench.schema.clean()
      const model = new JobModel()
      model.processes = [await insertProcess(database), await insertProcess(database)]
      for (const step of commands) await step.run(model, database)
    }),
    // On a busy machine fewer sequences, rather than a late end.
    { numRuns: 80, interruptAfterTimeLimit: 8_000 },
  )
})
