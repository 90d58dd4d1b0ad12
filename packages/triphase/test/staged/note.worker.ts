// An engine in a process of its own, to be killed: it prints the name of each event.
import { createEngine } from '../../src/index.ts'
import { callInSteps, noteTask } from './note-task.ts'

const { URL, SCHEMA, NAME, API, TABLE, STEPS } = process.env as Record<string, string>

const task = { api: API!, table: TABLE! }
const call = STEPS ? { call: callInSteps(API!, ...STEPS.split(',')) } : {}
const engine = createEngine({
  url: URL!,
  schema: SCHEMA!,
  name: NAME!,
  heartbeat: '100ms',
  deadAfter: '300ms',
  queues: { default: 1 },
  tasks: [noteTask({ ...task, ...call })],
})
engine.telemetry.onAny((name) => process.stdout.write(`${name}\n`))
await engine.start()
