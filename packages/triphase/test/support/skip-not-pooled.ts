import { relative } from 'node:path'
import { beforeEach, type TestContext } from 'vitest'
import { NOT_POOLED_TESTS } from './not-pooled.ts'

const TESTS = new URL('..', import.meta.url).pathname

beforeEach((context: TestContext) => {
  const { task } = context
  const reason = NOT_POOLED_TESTS[[relative(TESTS, task.file.filepath), ...namesOf(task)].join(' > ')]
  context.skip(reason !== undefined, reason)
})

function namesOf(task: TestContext['task'] | NonNullable<TestContext['task']['suite']>): string[] {
  return [...(task.suite ? namesOf(task.suite) : []), task.name]
}
