//! What a stored value would have been, had its point been configured otherwise: a wrong scale that is
//! found after three months. No I/O.
//!
//! From the value back to what the device said, by the configuration that was in force, and from there
//! to the value again by the one that should have been. The way back is tried: it counts only if it gives
//! the stored value to the bit. What cannot be gone back is an error for a person, never a guess.
//! Limits: the sign of a zero of a float is not stored, it is taken as positive; of half a register
//! or a single bit the rest of the words is not stored.

use tjern_readings::configuration::ConfigText;
use tjern_readings::reading::Cause;
use tjern_readings::sensor::SensorId;

use super::{NoValue, NumberType, Order, Scaling, decode, encode};
use crate::config::{BusKind, Config};

/// What should have been configured; what is none was right.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Change {
    /// The factor. Finite, and not zero.
    pub scale: Option<f64>,
    /// What is added. Finite.
    pub offset: Option<f64>,
    /// In which order the bytes lie.
    pub order: Option<Order>,
}

/// From the values of one point, as it was configured, to what they should have been.
#[derive(Debug, Clone)]
pub struct Formula {
    kind: Kind,
    before: Scaling,
    after: Scaling,
}

#[derive(Debug, Clone)]
enum Kind {
    Text,
    Registers { kind: NumberType, before: Order, after: Order, no_value: NoValue },
}

/// What becomes of a stored reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Again {
    /// It has this value.
    Value(f64),
    /// It has no value.
    Missing(Cause),
    /// The change has no bearing on it.
    AsItIs,
}

/// Why there is no formula.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormulaError {
    /// The configuration is no longer understood.
    #[error("its configuration cannot be read: {0}")]
    Configuration(String),
    /// It does not name the sensor.
    #[error("its configuration has no point for this sensor")]
    NoPoint,
    /// Lines of text have no order.
    #[error("it was read from a line of text, which has no order of bytes")]
    TextHasNoOrder,
    /// The words are not stored whole.
    #[error("only a part of its register is stored, so its bytes cannot be put into another order")]
    PartOfRegister,
    /// The order is one of wider numbers.
    #[error("its type takes fewer registers than this order has")]
    Order,
}

/// Why a stored value does not lead back to what the device said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRecoverable {
    /// No raw number, or more than one, gives the value.
    #[error("no single raw number gives this value by the configuration in force")]
    Raw,
    /// No value was stored, and in another order of bytes there may have been one.
    #[error("no value is stored ({0}), and in another order its bytes may have been one")]
    NoValue(Cause),
}

impl Change {
    /// The formula for a sensor's values that were made under this configuration (a text, as the landing
    /// zone keeps it).
    ///
    /// # Errors
    /// [`FormulaError`]: none of them can be computed again.
    pub fn formula(&self, configuration: &str, sensor: &SensorId) -> Result<Formula, FormulaError> {
        let config = Config::parse(&ConfigText::new("the configuration in the landing zone", configuration));
        let config = config.map_err(|error| FormulaError::Configuration(error.to_string()))?;
        let found = config.buses().iter().find_map(|bus| match &bus.kind {
            BusKind::ModbusTcp { devices, .. }
            | BusKind::ModbusRtu { devices, .. }
            | BusKind::ModbusRtuTcp { devices, .. } => {
                let point =
                    devices.iter().flat_map(|device| &device.points).find(|one| one.common.sensor == *sensor)?;
                let registers = (point.kind, point.order, point.common.terms.no_value.clone());
                Some((point.common.terms.scaling, Some(registers)))
            }
            BusKind::TextLines { points, .. } => {
                let point = points.iter().find(|one| one.common.sensor == *sensor)?;
                Some((point.common.terms.scaling, None))
            }
        });
        let (before, registers) = found.ok_or(FormulaError::NoPoint)?;
        let kind = match (registers, self.order) {
            (None, Some(_)) => return Err(FormulaError::TextHasNoOrder),
            (None, None) => Kind::Text,
            (Some((kind, _, _)), Some(_)) if kind.is_part_of_register() => return Err(FormulaError::PartOfRegister),
            (Some((kind, _, _)), Some(after)) if !after.fits(kind) => return Err(FormulaError::Order),
            (Some((kind, before, no_value)), after) => {
                Kind::Registers { kind, before, after: after.unwrap_or(before), no_value }
            }
        };
        Ok(Formula { kind, before, after: self.scaling(before) })
    }

    /// The scaling that should have been, where this one was.
    #[must_use]
    pub fn scaling(&self, before: Scaling) -> Scaling {
        Scaling::new(self.scale.unwrap_or(before.scale()), self.offset.unwrap_or(before.offset()))
    }
}

impl Formula {
    /// A value again. A reading without one (`Err`) stays as it is, unless its words are in question.
    ///
    /// # Errors
    /// [`NotRecoverable`]: it has to be left as it is.
    pub fn again(&self, stored: Result<f64, Cause>) -> Result<Again, NotRecoverable> {
        let value = match stored {
            Ok(value) => value,
            Err(cause) if self.reorders() && cause.is_of_words() => return Err(NotRecoverable::NoValue(cause)),
            Err(_) => return Ok(Again::AsItIs),
        };
        let raw = self.raw(value).ok_or(NotRecoverable::Raw)?;
        let raw = match &self.kind {
            Kind::Registers { kind, before, after, no_value } if before != after => {
                let words = encode(*kind, *before, raw);
                if !matches!(decode(*kind, *before, &words), Ok(same) if same.to_bits() == raw.to_bits()) {
                    return Err(NotRecoverable::Raw);
                }
                no_value.decode(*kind, *after, &words)
            }
            _ => Ok(raw),
        };
        Ok(match raw.map(|raw| self.after.apply(raw)) {
            Ok(value) if value.is_finite() => Again::Value(value),
            Ok(_) => Again::Missing(Cause::NotANumber),
            Err(cause) => Again::Missing(cause),
        })
    }

    fn reorders(&self) -> bool {
        matches!(&self.kind, Kind::Registers { before, after, .. } if before != after)
    }

    fn raw(&self, value: f64) -> Option<f64> {
        match &self.kind {
            _ if self.before.is_identity() => Some(value),
            Kind::Registers { kind: NumberType::F32, .. } => self.before.raw_of_32_bits(value),
            Kind::Text => self.before.nearest_raw(value),
            // Neighbours may give the same value, which matters where their bytes are asked for.
            Kind::Registers { kind: NumberType::F64, .. } if self.reorders() => None,
            Kind::Registers { kind: NumberType::F64, .. } => self.before.nearest_raw(value),
            Kind::Registers { .. } => self.before.whole_raw(value),
        }
    }
}

#[cfg(test)]
mod tests;
