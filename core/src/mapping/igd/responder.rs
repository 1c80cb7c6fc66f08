//! A host that answered a search.

use crate::wire::upnp::description::{Description, Service};
use crate::wire::upnp::ssdp::{Device, Message};
use crate::wire::upnp::{HttpUrl, ServiceType};
use crate::words::checkpoint::{BadCheckpoint, Loader, Saved, Saver, saved};
use crate::{Gateway, Instant};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// A host that answered a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Responder {
    /// Where its messages come from.
    pub(super) from: IpAddr,
    /// Where its description is: at `from` or at the gateway, whatever it says.
    pub(super) location: HttpUrl,
    pub(super) is_gateway: bool,
    pub(super) found_at: Instant,
    /// Changes when it restarts.
    pub(super) boot: Option<u32>,
    pub(super) state: State,
    /// Whether it grants nothing that ends (725, 402).
    pub(super) is_permanent: bool,
    /// Requests that it did not answer in time, one after the other.
    pub(super) slow: u8,
    /// Whether its description was read again since something last worked (501).
    pub(super) is_retried: bool,
}

/// How far we are with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Its description is to be read.
    Found,
    /// It has services of use, better ones first; `at` is the one that is asked.
    Ready { services: Vec<Asked>, at: usize },
    /// It cannot be used until then.
    Broken { until: Instant },
}

/// A service, and where it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) service: ServiceType,
    pub(super) url: HttpUrl,
}

impl Responder {
    /// The answer to a search that came from this host; `None` if it is none, or of no use.
    pub(super) fn found(
        now: Instant,
        gateway: &Gateway,
        from: IpAddr,
        body: &[u8],
    ) -> Option<Responder> {
        match Message::decode(body).ok()? {
            Message::Found(device) => Responder::of(now, gateway, from, device),
            Message::Notify { .. } | Message::Search { .. } => None,
        }
    }

    pub(super) fn of(
        now: Instant,
        gateway: &Gateway,
        from: IpAddr,
        device: Device,
    ) -> Option<Responder> {
        Some(Responder {
            from,
            location: confined(device.location?, from, gateway),
            is_gateway: from == gateway.router,
            found_at: now,
            boot: device.boot_id,
            state: State::Found,
            is_permanent: false,
            slow: 0,
            is_retried: false,
        })
    }

    /// Its description was read. Whether there is anything of use in it; `v6` asks for pinholes.
    pub(super) fn described(&mut self, gateway: &Gateway, description: Description) -> bool {
        let v6 = gateway.source.is_ipv6();
        let of_use = |service: &Service| service.service_type.is_firewall() == v6;
        let services = description.services.into_iter().filter(of_use);
        let mut services: Vec<Asked> = services
            .map(|service| Asked {
                service: service.service_type,
                url: confined(service.control_url, self.from, gateway),
            })
            .collect();
        services.sort_by_key(|asked| asked.service);
        services.dedup();
        let is_of_use = !services.is_empty();
        if is_of_use {
            self.state = State::Ready { services, at: 0 };
        }
        is_of_use
    }

    /// The service that is asked.
    pub(super) fn asked(&self) -> Option<&Asked> {
        match &self.state {
            State::Ready { services, at } => services.get(*at),
            State::Found | State::Broken { .. } => None,
        }
    }

    /// Begin with the best service again.
    pub(super) fn start_over(&mut self) {
        if let State::Ready { at, .. } = &mut self.state {
            *at = 0;
        }
    }

    /// It does not do what it is asked (401): turn to the next service, if there is one.
    pub(super) fn turns(&mut self) -> bool {
        match &mut self.state {
            State::Ready { services, at } if *at + 1 < services.len() => {
                *at += 1;
                true
            }
            State::Ready { .. } | State::Found | State::Broken { .. } => false,
        }
    }
}

/// Nobody is asked on a host's word but the host itself, or the gateway. Some routers name an
/// address that leads elsewhere, or nowhere: theirs is the one that their answer came from.
fn confined(url: HttpUrl, from: IpAddr, gateway: &Gateway) -> HttpUrl {
    if url.host == gateway.router { url } else { url.with_host(from) }
}

saved!(struct Responder {
    from, location, is_gateway, found_at, boot, state, is_permanent, slow, is_retried,
});
saved!(enum State { 1 = Found, 2 = Ready { services, at }, 3 = Broken { until } });
saved!(struct Asked { service, url });

impl Saved for HttpUrl {
    fn save(&self, out: &mut Saver<'_>) {
        self.host.save(out);
        self.port.save(out);
        self.path.save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<HttpUrl, BadCheckpoint> {
        let (host, port) = (IpAddr::load(from)?, u16::load(from)?);
        let path = String::load(from)?;
        let url = HttpUrl::parse(&alloc::format!("http://0.0.0.0:{port}{path}"));
        url.map(|url| url.with_host(host)).map_err(|_| BadCheckpoint)
    }
}

impl Saved for ServiceType {
    fn save(&self, out: &mut Saver<'_>) {
        let place = ServiceType::ALL.iter().position(|one| one == self);
        place.unwrap_or(0).save(out);
    }

    fn load(from: &mut Loader<'_>) -> Result<ServiceType, BadCheckpoint> {
        ServiceType::ALL.get(usize::load(from)?).copied().ok_or(BadCheckpoint)
    }
}
