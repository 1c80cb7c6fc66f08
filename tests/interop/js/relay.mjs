// What a peer of `peer.mjs` does with relays: it is one, reserves at one, and sends bytes through one.
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'

// Limits as js-libp2p is to enforce them; null is its default.
function server ({ bytes, milliseconds }) {
  const reservations = {}
  if (bytes != null) {
    reservations.defaultDataLimit = BigInt(bytes)
  }
  if (milliseconds != null) {
    reservations.defaultDurationLimit = milliseconds
  }
  return circuitRelayServer({ reservations })
}

// What to add to a node's transports.
export function transports (options) {
  return options.relayClient ? [circuitRelayTransport()] : []
}

// What to add to a node's services.
export function services (options) {
  return options.relay == null ? {} : { relay: server(options.relay) }
}

// The limits of a connection, or null. They count down; these are those of this moment.
export function limits (connection) {
  if (connection.limits == null) {
    return null
  }
  const { bytes, seconds } = connection.limits
  return { bytes: bytes == null ? null : Number(bytes), seconds: seconds ?? null }
}

async function readAll (stream) {
  const chunks = []
  for await (const chunk of stream) {
    chunks.push(Buffer.from(chunk.subarray()))
  }
  return Buffer.concat(chunks)
}

// Echo what peers send, even through relays.
export async function serve (node, { echo }) {
  await node.handle(echo, async (stream) => {
    const bytes = await readAll(stream)
    stream.send(bytes)
    await stream.close()
  }, { runOnLimitedConnection: true })
}

export const commands = {
  async reserve (node, { id, addr }, say, inner) {
    const target = multiaddr(addr)
    await inner.transports.listen([target.encapsulate('/p2p-circuit')])
    const relay = addr.split('/p2p/').pop()
    const { reservationStore } = inner.transports.getTransports()
      .find((transport) => transport.reservationStore != null)
    const reservation = reservationStore.getReservation(peerIdFromString(relay))
    say('reserved', {
      id,
      relay,
      addrs: reservation.addrs.map((bytes) => multiaddr(bytes).toString()),
      voucher: reservation.voucher != null
    })
  },
  async echo (node, { id, peer, bytes, signal }, say, inner) {
    const sent = Buffer.alloc(bytes)
    for (let at = 0; at < bytes; at += 4096) {
      crypto.getRandomValues(sent.subarray(at, Math.min(bytes, at + 4096)))
    }
    // Not `dialProtocol`: that dials anew where all that stands is limited.
    const all = node.getConnections(peerIdFromString(peer))
    const connection = all.find((one) => one.limits == null) ?? all[0]
    const stream = await connection.newStream(inner.echo, { runOnLimitedConnection: true, signal })
    stream.send(sent)
    const [back] = await Promise.all([readAll(stream), stream.close({ signal })])
    if (!back.equals(sent)) {
      throw new Error(`${back.length} bytes came back, and not those that were sent`)
    }
    say('echoed', { id, bytes: back.length })
  },
  async reservations (node, { id }, say) {
    say('reservations', { id, peers: [...node.services.relay.reservations.keys()].map(String) })
  }
}
