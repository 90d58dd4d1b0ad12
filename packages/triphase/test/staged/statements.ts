import type { StatementMatch } from '../support/fault-proxy.ts'

/** The statements of a staged job on the application's connections. */
const APPLICATION = {
  begin: /^BEGIN/,
  'prepare writes': /^INSERT INTO [\w.]+_note/,
  'query in call': /^SELECT 'in call'/,
  'commit writes': /^UPDATE [\w.]+_note/,
  ack: /\.finish_jobs\(/,
  commit: /^COMMIT/,
}

/** And on the engine's. */
const ENGINE = {
  claim: /\.claim_jobs\(/,
  'look up answers': /^\s*SELECT answer::text/,
  'store answer': /\.store_answer\(/,
  beat: /SET beat = beat/,
  'ack failure': /\.reschedule_jobs\(/,
  finish: /\.finish_jobs\(/,
  'wait for commit': /FOR SHARE/,
}

export type Statement = keyof typeof APPLICATION | keyof typeof ENGINE

/** A statement of the engine with this name, told by its text and its connection's application name. */
export function statementOf(engine: string, statement: Statement): StatementMatch {
  const application = statement in APPLICATION
  const pattern: RegExp = { ...APPLICATION, ...ENGINE }[statement]
  const connection = application ? engine : `${engine}-engine`
  return (sql, name) => name === connection && pattern.test(sql)
}
