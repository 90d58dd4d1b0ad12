export type { Allowed, GuardMode, GuardOptions } from '../config.ts'
export { guard } from './pool.ts'
export {
  allowCalls,
  guardTransactions,
  type RunsTransactions,
  type TransactionOptions,
} from './transaction.ts'
