import { type ErrorCode, TriphaseError } from '../errors.ts'
import type { Place } from './place.ts'
import type { Call } from './taps.ts'

/** Something that a transaction must not do, because its connection is held meanwhile. */
export type Offence =
  | { kind: 'call'; call: Call }
  | { kind: 'checkout'; place: Place }
  | { kind: 'hold'; limitMs: number }

/** What keeps a transaction from being committed. */
export type Refusable = Exclude<Offence, { kind: 'hold' }>

/** What happened, in a few words: the same for every time that it happens. */
export function offenceName(offence: Offence): string {
  if (offence.kind === 'call') return offence.call.name()
  return offence.kind === 'checkout' ? 'a second connection' : `open for more than ${offence.limitMs} ms`
}

const CODES: Record<Refusable['kind'], ErrorCode> = {
  call: 'CALL_IN_TRANSACTION',
  checkout: 'SECOND_CHECKOUT',
}

/** The error with which a transaction ends that is not committed. */
export function refusal(offence: Refusable, opened: string): TriphaseError {
  const message = `${whatHappened(offence, opened)} It was rolled back, as the guard's mode is 'error'. ${remedy(offence)}`
  return new TriphaseError(CODES[offence.kind], message)
}

/** What is reported of a transaction that may commit nevertheless. */
export function complaint(offence: Offence, opened: string): string {
  return `${whatHappened(offence, opened)} ${remedy(offence)}`
}

const VERBS: Record<Call['kind'], string> = { request: 'called', socket: 'opened', process: 'started' }

function whatHappened(offence: Offence, opened: string): string {
  const transaction = `the transaction opened ${opened}`
  switch (offence.kind) {
    case 'call':
      return `${capital(offence.call.name())} was ${VERBS[offence.call.kind]}${from(offence.call.place)} inside ${transaction}, which holds a connection and its locks until the answer is there.`
    case 'checkout':
      return `A second connection of the same pool was asked for${from(offence.place)} inside ${transaction}: when every connection is held by one that wants another, all wait for ever.`
    case 'hold':
      return `${capital(transaction)} was open for more than ${offence.limitMs} ms (maxHold), and held a connection and its locks.`
  }
}

function remedy(offence: Offence): string {
  switch (offence.kind) {
    case 'call': {
      const host = offence.call.host()
      const allow = host === undefined ? 'allow: true' : `allow: ['${host}']`
      return `Make the call first and write its answer in a transaction afterwards: in a staged task, move it from prepare or commit to call. If it has to be made here, give the transaction { ${allow} }.`
    }
    case 'checkout':
      return 'Use the transaction that is open for this statement as well, or end it first.'
    case 'hold':
      return 'Move what takes long out of it, or give the transaction a longer { maxHold }.'
  }
}

function from({ line }: Place): string {
  return line === undefined ? '' : ` at ${line}`
}

function capital(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`
}
