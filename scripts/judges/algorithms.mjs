// Judge: clients that take one signature algorithm alone, on a server that is set to it. Started by oidc.py.

import { decodeProtectedHeader, jwtVerify } from 'jose'
import * as openid from 'openid-client'
import { asStranger, authorize, launch, returnAddress } from '../lib/browser.mjs'
import { Checks, equal } from '../lib/checks.mjs'
import { ISSUER, PERSON, keysOfServer, notebookRequest, prepare, redeem, state } from './oidc/world.mjs'

const ALGORITHM = process.env.ALGORITHM

async function clientOfOneAlgorithm(home) {
  await prepare(home, home)
  state.publicConfig = await openid.discovery(
    new URL(ISSUER),
    state.notebook.client_id,
    { id_token_signed_response_alg: ALGORITHM },
    openid.None(),
    { execute: [openid.allowInsecureRequests, openid.enableNonRepudiationChecks] },
  )
  state.as = state.publicConfig.serverMetadata()
  equal(state.as.id_token_signing_alg_values_supported, [ALGORITHM], 'what is advertised')
}

async function logIn(browser) {
  await asStranger(browser, async (context) => {
    const request = await notebookRequest()
    const back = await authorize(context, request.url, state.loopback, PERSON)
    const tokens = await redeem(request, back)
    for (const token of [tokens.access_token, tokens.id_token]) {
      equal(decodeProtectedHeader(token).alg, ALGORITHM, 'what signs')
      await jwtVerify(token, keysOfServer(), { algorithms: [ALGORITHM], issuer: ISSUER })
    }
  })
}

async function main() {
  const checks = new Checks()
  const browser = await launch()
  const home = await returnAddress()
  try {
    await checks.run(`openid-client finds ${ALGORITHM} advertised`, () => clientOfOneAlgorithm(home))
    await checks.run(`a client of ${ALGORITHM} alone gets tokens, and jose verifies them`, () => logIn(browser))
  } finally {
    await browser.close()
    home.close()
  }
  checks.finish()
}

await main()
