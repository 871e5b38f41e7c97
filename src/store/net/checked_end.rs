//! How a connection ends. The client takes one that broke off for one that the other side closed: here it stays an error. What TLS ends with is
//! said by the other side (close_notify), and nobody on the way can say it for them.

use crate::error::SourceFault;
use crate::store::inflate::Broken;
use std::io::{self, ErrorKind};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Puts what checks the end before whatever connects.
#[derive(Debug)]
pub struct CheckedEnd;

/// A connection whose end is checked.
#[derive(Debug)]
pub struct Ended<T>(T);

impl<In: Transport> Connector<In> for CheckedEnd {
    type Out = Ended<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Ended<In>>, ureq::Error> {
        Ok(chained.map(Ended))
    }
}

impl<T: Transport> Transport for Ended<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(timeout).map_err(|error| match error {
            ureq::Error::Io(error)
                if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) =>
            {
                ureq::Error::Io(io::Error::other(Broken(SourceFault::Truncated("the connection broke off".to_owned()))))
            }
            error => error,
        })
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
