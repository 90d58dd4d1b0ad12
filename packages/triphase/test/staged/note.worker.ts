// An engine in a process of its own, to be killed: it prints the name of each event.
import { createEngine } from '../../src/index.ts'
import { noteTask, pay } from './note-task.ts'

const { URL, SCHEMA, NAME, API, TABLE, STEPS } = process.env as Record<string, string>

const engine = createEngine({
  url: URL!,
  schema: SCHEMA!,
  name: NAME!,
  heartbeat: '100ms',
  deadAfter: '300ms',
  queues: { default: 1 },
  tasks: [
    noteTask({
      api: API!,
      table: TABLE!,
      ...(STEPS ? { call: (context) => inSteps(STEPS.split(','), context) } : {}),
    }),
  ],
})

type Call = Parameters<NonNullable<Parameters<typeof noteTask>[0]['call']>>[0]

async function inSteps(steps: string[], context: Call): Promise<unknown[]> {
  const answers: unknown[] = []
  for (const step of steps) answers.push(await context.step(step, () => pay(API!, step, context)))
  return answers
}

engine.telemetry.onAny((name) => process.stdout.write(`${name}\n`))
await engine.start()
