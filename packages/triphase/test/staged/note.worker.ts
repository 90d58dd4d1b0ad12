// An engine in a process of its own, to be killed: it prints the name of each event.
import { createEngine } from '../../src/index.ts'
import { callInSteps, noteTask, refusedCall } from './note-task.ts'

const { URL, SCHEMA, NAME, API, TABLE, STEPS, REFUSED } = process.env as Record<string, string>

const steps = STEPS ? { call: callInSteps(API!, ...STEPS.split(',')) } : {}
const refused = REFUSED ? { call: refusedCall(API!), abandon: async () => {} } : {}
const engine = createEngine({
  url: URL!,
  schema: SCHEMA!,
  name: NAME!,
  heartbeat: '100ms',
  deadAfter: '300ms',
  queues: { default: 1 },
  tasks: [noteTask({ api: API!, table: TABLE!, ...steps, ...refused })],
})
engine.telemetry.onAny((name) => process.stdout.write(`${name}\n`))
await engine.start()
