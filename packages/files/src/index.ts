export { type ExportCounts, type ExportOptions, exportFile } from './export-file.ts'
export { FileFaults, type LineFault } from './faults.ts'
export type { FileFormat, FormatOptions } from './file-format.ts'
export { columnsOf } from './file-lines.ts'
export {
  defineFileSweep,
  type FileLine,
  type FileSweep,
  type FileSweepDefinition,
  isFileSweep,
  type LineContext,
} from './file-sweep.ts'
export { type LoadOptions, type LoadParts, loadFile } from './load-file.ts'
export { type LoadedFile, loadedFile } from './loaded-file.ts'
export type { ReadProgress } from './source.ts'
