// A real browser that a test drives: a command a line on standard input, as JSON, and an answer a line.
//
//   {"open": URL, "width": 1280, "height": 900, "dark": false}   a page of its own, seen at this size
//   {"wait": SELECTOR, "text": WORDS}                            until the text there holds these words
//   {"read": SELECTOR}                                           the text of everything there
//   {"count": SELECTOR}                                          how many of them there are
//   {"measure": true}                                            what a script of the page can know of it
//   {"shoot": FILE}                                              the whole page as a picture
//   {"heard": true}                                              what the page complained of, and asked for
//
// The answer is {"ok": …}, or {"error": WORDS}.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'

const timeout = 20_000
const profile = mkdtempSync(join(tmpdir(), 'portolan-browser-'))
const options = {
  executablePath: process.argv[2],
  args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
  // As root there is no sandbox to be had; the pages are our own.
  chromiumSandbox: process.getuid() !== 0
}
const browser = await chromium.launchPersistentContext(profile, options)
let page
const complaints = []
const requests = []

const does = {
  async open ({ open, width, height, dark }) {
    await page?.close()
    complaints.length = 0
    requests.length = 0
    page = await browser.newPage()
    page.setDefaultTimeout(timeout)
    page.on('console', (said) => complaints.push(`${said.type()}: ${said.text()}`))
    page.on('pageerror', (error) => complaints.push(`error: ${error.message}`))
    page.on('dialog', (dialog) => {
      complaints.push(`dialog: ${dialog.message()}`)
      void dialog.dismiss()
    })
    page.on('request', (request) => requests.push(request.url()))
    await page.setViewportSize({ width, height })
    await page.emulateMedia({ colorScheme: dark ? 'dark' : 'light' })
    const answer = await page.goto(open, { waitUntil: 'domcontentloaded' })
    return answer.status()
  },
  async wait ({ wait, text }) {
    await page.locator(wait).filter({ hasText: text }).first().waitFor({ state: 'attached' })
    return true
  },
  async read ({ read }) {
    return page.locator(read).allTextContents()
  },
  async count ({ count }) {
    return page.locator(count).count()
  },
  async measure () {
    return page.evaluate(() => {
      const root = document.documentElement
      const style = getComputedStyle(document.body)
      return {
        // Wider than the window is what has to be scrolled sideways.
        overflow: root.scrollWidth - root.clientWidth,
        background: style.backgroundColor,
        color: style.color,
        title: document.title
      }
    })
  },
  async shoot ({ shoot }) {
    await page.screenshot({ path: shoot, fullPage: true })
    return true
  },
  async heard () {
    return { complaints: [...complaints], requests: [...requests] }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer
  try {
    const command = JSON.parse(line)
    const name = Object.keys(command).find((key) => Object.hasOwn(does, key))
    answer = { ok: await does[name](command) }
  } catch (error) {
    answer = { error: String(error.message ?? error) }
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}
await browser.close()
rmSync(profile, { recursive: true, force: true })
