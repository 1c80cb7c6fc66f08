// One js-libp2p peer, steered from outside.
//
// Started as `node peer.mjs OPTIONS`, where OPTIONS is a JSON object (see `defaults`). It speaks
// JSON lines: events on stdout, each an object with the field `event`; commands on stdin, each an
// object with the field `do`. When stdin ends, the peer stops and the process exits.
//
// Events
//   ready       peer, addrs (with /p2p/), verified: those of them that it takes for confirmed
//               before it has met anybody, node: the version of Node
//   connection  peer, remote, direction, limits: a connection is open; limits are {bytes, seconds}
//               where a relay told some, else null
//   closed      peer, remote, limits: a connection is gone
//   identified  peer, agent, protocol, observed, listen, protocols, certified: what a peer said
//   pinged      id, rtt_ms
//   dialled     id, peer
//   verified    addrs: the addresses that AutoNAT has confirmed so far, when one is added; private
//               addresses never, because js-libp2p takes them for granted without asking anybody
//   refuted     addrs: the public addresses that AutoNAT has given up so far, when one is added. No
//               event of js-libp2p tells an application; its address manager forgets them
//   settled     nobody has been asked anything for a while, and nobody will be until another peer
//               connects: only then does js-libp2p ask
//   reserved    id, relay, addrs, voucher: a reservation stands; its addresses as the node joined them
//   echoed      id, bytes: they came back as they were sent
//   reservations id, peers: who holds one here
//   punching    text, error: what the service that makes direct connections says it does; texts have
//               places for values, which are left out
//   hearsay     text, error: the same of AutoNAT v1
//   failed      id, what, error: a command failed, or the start did
//   stopped     nothing follows
//
// Commands
//   dial  id, addr      open a connection, even beside another; identify runs by itself
//   ping  id, peer      ping over a connection that is open
//   reserve id, addr    reserve at the relay at this address, which ends with /p2p/
//   echo  id, peer, bytes  send so many bytes and compare what comes back
//   reservations id     who holds a reservation here
//   stop                the same as the end of stdin
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { quic } from '@chainsafe/libp2p-quic'
import { yamux } from '@chainsafe/libp2p-yamux'
import { autoNAT } from '@libp2p/autonat'
import { autoNATv2 } from '@libp2p/autonat-v2'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { dcutr } from '@libp2p/dcutr'
import { identify, identifyPush } from '@libp2p/identify'
import { defaultLogger } from '@libp2p/logger'
import { peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { isPrivate } from '@libp2p/utils'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import * as relay from './relay.mjs'

const defaults = {
  // Multiaddrs to listen on.
  listen: [],
  // The identity's type: Ed25519, secp256k1, ECDSA or RSA.
  key: 'Ed25519',
  // What secures TCP: noise or tls.
  security: 'noise',
  // Whether AutoNAT v2 runs, which in js-libp2p is client and server at once.
  autonat: false,
  // Whether AutoNAT v1 runs, client and server at once.
  autonatV1: false,
  // Whether its server dials even whom it is connected to, which as published it does not.
  autonatV1Dials: false,
  // What it allows a circuit, as {bytes, milliseconds}, if it is a relay; null for its own default.
  relay: null,
  // Whether it can reserve at relays and dial through them.
  relayClient: false,
  // Whether it makes direct connections out of relayed ones.
  punch: false,
  // The protocol on which it echoes: whatever is sent until the sender ends comes back, and then
  // the end.
  echo: '/portolan/test/echo/1.0.0'
}

// A dial of a test is on this host: seconds mean that it hangs.
const COMMAND_TIMEOUT_MS = 10_000
// How often the address manager is asked what AutoNAT has confirmed: js-libp2p's own event for it
// waits for a debounce of its own.
const VERIFIED_POLL_MS = 25
// How long nobody must have been asked until it counts as settled: identify, after which js-libp2p
// asks, takes a tenth of this on a busy machine.
const SETTLED_MS = 5_000

function say (event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`)
}

async function privateKey (type) {
  return type === 'RSA' ? generateKeyPair('RSA', 2048) : generateKeyPair(type)
}

// Services that have no events of their own, and the event that tells what they write to the log.
const TOLD = { 'libp2p:dcutr': 'punching', 'libp2p:auto-nat': 'hearsay' }

// A logger that tells what those services write.
function telling (others) {
  const teller = (event) => {
    const tell = (text, ...values) => {
      const error = values.find((value) => value instanceof Error)
      say(event, { text, error: error == null ? null : String(error.message) })
    }
    const log = Object.assign(tell, { error: tell, trace: () => {}, enabled: true, newScope: () => log })
    return log
  }
  return { forComponent: (name) => name in TOLD ? teller(TOLD[name]) : others.forComponent(name) }
}

// The components of a node for a service, whose dials never find an existing connection.
function dialling (components) {
  const manager = new Proxy(components.connectionManager, {
    get: (target, name) => name === 'openConnection'
      ? (to, options) => target.openConnection(to, { ...options, force: true })
      : target[name]
  })
  return new Proxy(components, {
    get: (target, name) => name === 'connectionManager' ? manager : target[name]
  })
}

async function start (options) {
  const inner = { echo: options.echo }
  const services = {
    identify: identify(),
    identifyPush: identifyPush(),
    ping: ping(),
    ...relay.services(options),
    // Not a service: a window on what the node keeps to itself.
    inner: (components) => Object.assign(inner, {
      addresses: components.addressManager,
      transports: components.transportManager
    })
  }
  if (options.autonat) {
    services.autonat = autoNATv2()
  }
  if (options.punch) {
    services.punch = dcutr()
  }
  if (options.autonatV1) {
    services.autonatV1 = (components) =>
      autoNAT()(options.autonatV1Dials ? dialling(components) : components)
  }
  const node = await createLibp2p({
    privateKey: await privateKey(options.key),
    addresses: { listen: options.listen },
    transports: [tcp(), quic(), ...relay.transports(options)],
    connectionEncrypters: [options.security === 'tls' ? tls() : noise()],
    streamMuxers: [yamux()],
    // By default js-libp2p dials no loopback address that another peer told it about.
    connectionGater: { denyDialMultiaddr: () => false },
    logger: telling(defaultLogger()),
    services
  })
  return { node, inner }
}

// What to do at every poll: tell what has changed since the last.
function look (node, inner) {
  const [verified, refuted, observed] = [new Set(), new Set(), new Set()]
  const add = (to, addrs, event) => {
    const before = to.size
    addrs.forEach((addr) => to.add(addr))
    if (to.size > before) {
      say(event, { addrs: [...to] })
    }
  }
  let [busyAt, settled] = [Date.now(), true]
  return () => {
    const now = Date.now()
    const all = inner.addresses.getAddressesWithMetadata()
      .filter(({ multiaddr }) => !isPrivate(multiaddr))
    const named = (some) => some.map(({ multiaddr }) => multiaddr.toString())
    add(verified, named(all.filter(({ verified }) => verified)), 'verified')
    // One that was observed is removed, any other waits before it is asked about again.
    const waiting = named(all.filter(({ verified, expires }) => !verified && expires > now))
    const left = named(all)
    const removed = [...observed].filter((addr) => !left.includes(addr) && !verified.has(addr))
    add(refuted, [...waiting, ...removed], 'refuted')
    named(all.filter(({ type }) => type === 'observed')).forEach((addr) => observed.add(addr))
    const connections = node.getConnections()
    // It dials back for others as well, which is none of these streams.
    const asks = connections.some(({ streams }) =>
      streams.some(({ direction, protocol }) =>
        direction === 'outbound' && protocol?.includes('/autonat/2/dial-request')))
    const busy = Math.max(busyAt, asks ? now : 0, ...connections.map(({ timeline }) => timeline.open))
    settled = settled && busy === busyAt
    busyAt = busy
    if (!settled && now - busyAt > SETTLED_MS) {
      settled = true
      say('settled', {})
    }
  }
}

function watch (node, inner) {
  node.addEventListener('connection:open', ({ detail }) => {
    say('connection', {
      peer: detail.remotePeer.toString(),
      remote: detail.remoteAddr.toString(),
      direction: detail.direction,
      limits: relay.limits(detail)
    })
  })
  node.addEventListener('connection:close', ({ detail }) => {
    say('closed', {
      peer: detail.remotePeer.toString(),
      remote: detail.remoteAddr.toString(),
      limits: relay.limits(detail)
    })
  })
  node.addEventListener('peer:identify', ({ detail }) => {
    say('identified', {
      peer: detail.peerId.toString(),
      agent: detail.agentVersion ?? null,
      protocol: detail.protocolVersion ?? null,
      observed: detail.observedAddr?.toString() ?? null,
      listen: detail.listenAddrs.map(String),
      protocols: detail.protocols,
      certified: detail.signedPeerRecord?.addresses.map(String) ?? null
    })
  })
  const poll = setInterval(look(node, inner), VERIFIED_POLL_MS)
  poll.unref()
}

const commands = {
  ...relay.commands,
  async dial (node, { id, addr, signal }) {
    const connection = await node.dial(multiaddr(addr), { signal, force: true })
    say('dialled', { id, peer: connection.remotePeer.toString() })
  },
  async ping (node, { id, peer, signal }) {
    const rtt = await node.services.ping.ping(peerIdFromString(peer), { signal })
    say('pinged', { id, rtt_ms: rtt })
  }
}

const options = { ...defaults, ...JSON.parse(process.argv[2] ?? '{}') }
const { node, inner } = await start(options).catch((err) => {
  say('failed', { id: null, what: 'start', error: err.message })
  process.exit(1)
})
watch(node, inner)
await relay.serve(node, inner)
say('ready', {
  peer: node.peerId.toString(),
  // What is listened on; `node.getMultiaddrs()` leaves out what AutoNAT has yet to confirm.
  addrs: inner.transports.getAddrs().map((addr) => `${addr}/p2p/${node.peerId}`),
  verified: node.getMultiaddrs().map(String),
  node: process.version
})

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  if (command.do === 'stop') {
    break
  }
  const run = commands[command.do]
  if (run == null) {
    say('failed', { id: command.id ?? null, what: command.do, error: 'no such command' })
    continue
  }
  // Commands run side by side: one that hangs holds up no other.
  const signal = AbortSignal.timeout(COMMAND_TIMEOUT_MS)
  run(node, { ...command, signal }, say, inner).catch((err) => {
    say('failed', { id: command.id ?? null, what: command.do, error: String(err?.message ?? err) })
  })
}
await node.stop()
say('stopped', {})
process.exit(0)
