import type { TableNote } from './loaded-file.ts'

/** What an export adds to each line, by the names that it has there. */
export interface OwnNames {
  readonly status: string
  readonly result: string
  readonly error: string
  /** Of the fields of a result. */
  readonly fields: readonly string[]
}

/**
 * The names of what an export adds. Where the file has one of them already (it is an export itself), all of them get a
 * number, so that they are seen to belong together: `status_2`, `result_2`, `error_2`.
 */
export function ownNames(
  { columns, reserved }: Pick<TableNote, 'columns' | 'reserved'>,
  fields: readonly string[],
): OwnNames {
  const taken = new Set([...(columns ?? []), ...reserved])
  const own = ['status', 'result', 'error', ...fields]
  let number = 1
  while (own.some((name) => taken.has(withNumber(name, number)))) number++
  return {
    status: withNumber('status', number),
    result: withNumber('result', number),
    error: withNumber('error', number),
    fields: fields.map((name) => withNumber(name, number)),
  }
}

function withNumber(name: string, number: number): string {
  return number === 1 ? name : `${name}_${number}`
}
