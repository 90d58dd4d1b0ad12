import type { SweepStatus } from 'triphase'
import { EXIT } from '../exit-codes.ts'
import { Problem } from '../problem.ts'
import { stateLine, statusLines } from '../status-text.ts'
import type { SweepContext } from './verb.ts'

/** Shows how the run stands after it was told something. */
export async function showSteered({ name, control, output }: SweepContext): Promise<SweepStatus> {
  const status = await control.status()
  output.result<'status'>({ sweep: name, ...status }, () => statusLines(name, status))
  return status
}

/** The state of the run does not allow what was asked. */
export async function refused(
  { name, control }: SweepContext,
  asked: string,
  remedy: string,
): Promise<Problem> {
  const status = await control.status()
  return new Problem(
    EXIT.refused,
    'RUN_STATE',
    `${stateLine(name, status)}: it cannot be ${asked}.${remedy ? ` ${remedy}` : ''}`,
  )
}
