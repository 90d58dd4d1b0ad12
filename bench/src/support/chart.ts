import type { Report } from './report.ts'

const WIDTH = 900
const ROW = 28
const MARGINS = 135
/** Width of a character, about: nothing here can measure text. */
const CHARACTER = 6.7

/** The first column of a report as bars, as SVG. */
export async function chartOf({ benchmark, about, columns, results, repeats }: Report): Promise<string> {
  // Its own size is worth loading only now, when nothing is measured any more.
  const { init } = await import('echarts')
  const [column] = columns
  const shown = results
    .map(({ variant, figures }) => ({ variant, spread: figures[column?.figure ?? ''] }))
    .filter(({ spread }) => spread !== undefined && !Number.isNaN(spread.median))
    .reverse()
  const longest = Math.max(...shown.map(({ variant }) => variant.length))
  const height = MARGINS + ROW * shown.length
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height })
  const number = new Intl.NumberFormat('en', { maximumFractionDigits: column?.places ?? 0 })
  chart.setOption({
    animation: false,
    title: {
      text: `${benchmark}: ${column?.title.replaceAll('\n', ' ')}, median of ${repeats}`,
      subtext: about,
      // Without a browser the library takes letters for narrower than they are.
      subtextStyle: { width: WIDTH * 0.7, overflow: 'break' },
    },
    grid: { left: 20 + CHARACTER * longest, right: 160, top: 95, bottom: 30 },
    xAxis: { type: 'value' },
    yAxis: { type: 'category', data: shown.map(({ variant }) => variant) },
    series: [
      {
        type: 'bar',
        data: shown.map(({ variant, spread }) => ({
          value: spread?.median ?? 0,
          itemStyle: { color: variant.startsWith('triphase') ? '#2563eb' : '#94a3b8' },
          label: {
            show: true,
            position: 'right',
            formatter: [
              number.format(spread?.median ?? 0),
              ...(repeats > 1
                ? [`(${number.format(spread?.min ?? 0)} - ${number.format(spread?.max ?? 0)})`]
                : []),
            ].join(' '),
          },
        })),
      },
    ],
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg
}
