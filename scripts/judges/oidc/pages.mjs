// What everybody may expect of a page: those who see badly, use no mouse, have no scripts or a small screen.

import { join } from 'node:path'
import { equal, holds, short } from '../../lib/checks.mjs'

const CONTRAST_MIN = 4.5 // WCAG 2.2, 1.4.3

// All that can be asked of any page as it stands; `name` is what it is called in the report.
export async function judgePage(checks, name, page, complaints) {
  const run = (what, body) => checks.run(`${name}: ${what}`, body)
  await run('has a language, a title and one heading', () => structure(page))
  await run('every field has its label', () => labels(page))
  await run('the keyboard reaches everything, and one sees where it is', () => focus(page))
  for (const colorScheme of ['light', 'dark']) {
    await run(`text is legible, ${colorScheme}`, () => contrast(page, colorScheme, name))
  }
  await run('fits a width of 320 pixels', () => narrow(page, name))
  await run('keeps its own Content-Security-Policy', () => equal(complaints, [], 'complaints of the browser'))
}

export function picture(page, name) {
  return page.screenshot({ path: join(process.env.PAGES, `${name}.png`), fullPage: true })
}

async function structure(page) {
  const found = await page.evaluate(() => ({
    language: document.documentElement.lang,
    title: document.title.trim(),
    headings: [...document.querySelectorAll('h1')].map((heading) => heading.innerText.trim()),
    mains: document.querySelectorAll('main').length,
    doctype: document.compatMode,
  }))
  holds(/^[a-z]{2}/.test(found.language), `html lang is ${short(found.language)}`)
  holds(found.title, 'there is no title')
  holds(found.headings.length === 1 && found.headings[0], `headings of the first level: ${short(found.headings)}`)
  equal(found.mains, 1, 'main landmarks')
  equal(found.doctype, 'CSS1Compat', 'mode of the browser')
}

async function labels(page) {
  const bare = await page.evaluate(() =>
    [...document.querySelectorAll('input:not([type=hidden]), select, textarea')]
      .filter((field) => ![...field.labels].some((label) => label.innerText.trim() && label.checkVisibility()))
      .map((field) => field.name),
  )
  equal(bare, [], 'fields without a visible label')
  const dumb = await page.evaluate(() =>
    [...document.querySelectorAll('button, a[href]')]
      .filter((one) => !one.innerText.trim())
      .map((one) => one.outerHTML),
  )
  equal(dumb, [], 'buttons and links without text')
}

// Presses Tab until everything that can have the focus has had it, and compares its looks with before.
async function focus(page) {
  const looks = (only) =>
    page.evaluate((onlyActive) => {
      const all = [
        ...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary'),
      ]
      return all
        .filter((one) => one.checkVisibility() && !one.disabled)
        .map((one, number) => {
          const style = getComputedStyle(one)
          const outlined = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 1
          const rest = [style.boxShadow, style.borderColor, style.backgroundColor]
          const name = one.name || one.innerText
          return {
            number,
            name,
            active: one === document.activeElement,
            looks: [outlined && style.outlineColor, ...rest],
          }
        })
        .filter((one) => !onlyActive || one.active)
    }, only)
  equal(
    await page.locator('[tabindex]:not([tabindex="0"]):not([tabindex="-1"])').count(),
    0,
    'elements with an order of their own',
  )
  await page.evaluate(() => document.activeElement?.blur())
  const before = await looks(false)
  holds(before.length > 0, 'nothing can have the focus')
  const invisible = new Set()
  const left = new Set(before.map((one) => one.number))
  for (let presses = 0; left.size && presses < 3 * before.length + 5; presses += 1) {
    await page.keyboard.press('Tab')
    const [now] = await looks(true)
    if (!now) continue // the browser's own controls
    left.delete(now.number)
    if (JSON.stringify(now.looks) === JSON.stringify(before[now.number].looks)) invisible.add(now.name)
  }
  equal(
    [...left].map((number) => before[number].name),
    [],
    'what Tab does not reach',
  )
  equal([...invisible], [], 'what looks the same with the focus')
}

async function contrast(page, colorScheme, name) {
  await page.emulateMedia({ colorScheme })
  try {
    await picture(page, `${name.replaceAll(' ', '-')}-${colorScheme}`)
    const found = await page.evaluate(contrasts)
    holds(found.length > 0, 'there is no text')
    const low = found.filter((one) => one.ratio < CONTRAST_MIN)
    equal(low, [], `text below ${CONTRAST_MIN} to 1`)
  } finally {
    await page.emulateMedia({ colorScheme: null })
  }
}

// Runs in the page: every visible piece of text with the contrast to what is behind it.
function contrasts() {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1)
    canvas.fillStyle = color
    canvas.fillRect(0, 0, 1, 1)
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data
    return { rgb: [r, g, b], alpha: a / 255 }
  }
  const over = (top, below) => top.rgb.map((value, n) => value * top.alpha + below[n] * (1 - top.alpha))
  const probe = document.createElement('div')
  probe.style.backgroundColor = 'Canvas'
  document.body.append(probe)
  const paper = rgba(getComputedStyle(probe).backgroundColor).rgb
  probe.remove()
  const behind = (element) => {
    if (!element) return paper
    return over(rgba(getComputedStyle(element).backgroundColor), behind(element.parentElement))
  }
  const luminance = (rgb) => {
    const [r, g, b] = rgb
      .map((value) => value / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const ratio = (element) => {
    const back = behind(element)
    const [dark, light] = [luminance(back), luminance(over(rgba(getComputedStyle(element).color), back))].sort(
      (a, b) => a - b,
    )
    return Math.round(((light + 0.05) / (dark + 0.05)) * 100) / 100
  }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  const texts = [...document.querySelectorAll('input:not([type=hidden])')].map((field) => [
    field,
    `field ${field.name}`,
  ])
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim()
    if (text) texts.push([walker.currentNode.parentElement, text.slice(0, 40)])
  }
  return texts
    .filter(([element]) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }))
    .map(([element, text]) => ({ text, ratio: ratio(element) }))
}

async function narrow(page, name) {
  const usual = page.viewportSize()
  await page.setViewportSize({ width: 320, height: 640 })
  try {
    await picture(page, `${name.replaceAll(' ', '-')}-320`)
    const width = await page.evaluate(() => document.scrollingElement.scrollWidth)
    holds(width <= 320, `${width} pixels wide`)
  } finally {
    await page.setViewportSize(usual)
  }
}

// The headers of a page on which somebody types a password.
export function judgeHeaders(headers) {
  const policy = Object.fromEntries(
    String(headers['content-security-policy'] ?? '')
      .split(';')
      .map((part) => part.trim().split(/\s+/))
      .map(([name, ...values]) => [name, values]),
  )
  const only = (name, allowed) => {
    const values = policy[name] ?? policy['default-src'] ?? ['*']
    holds(
      values.every((value) => allowed.test(value)),
      `Content-Security-Policy: ${name} ${values.join(' ')}`,
    )
  }
  only('default-src', /^'(none|self)'$/)
  only('script-src', /^'(none|self|nonce-.+|sha256-.+)'$/)
  only('style-src', /^'(none|self|nonce-.+|sha256-.+)'$/)
  equal(policy['frame-ancestors'], ["'none'"], 'frame-ancestors')
  holds(policy['base-uri'] && policy['form-action'], 'Content-Security-Policy without base-uri or form-action')
  holds(String(headers['cache-control']).includes('no-store'), `Cache-Control: ${headers['cache-control']}`)
  equal(headers['x-content-type-options'], 'nosniff', 'X-Content-Type-Options')
  holds(
    /no-referrer|same-origin|strict-origin/.test(headers['referrer-policy']),
    `Referrer-Policy: ${headers['referrer-policy']}`,
  )
}
