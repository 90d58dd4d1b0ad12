export { EXIT, type ExitCode } from './exit-codes.ts'
export type { Json } from './json.ts'
