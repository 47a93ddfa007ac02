//! A line of a table as something that `serde` reads: each cell becomes what its
//! field wants, and an empty one counts as absent.

use serde::de::value::MapDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

/// A line, read as a map from the names in the first line to its cells.
pub(super) fn line<'a>(
    names: impl Iterator<Item = &'a str> + 'a,
    cells: impl Iterator<Item = &'a str> + 'a,
) -> impl Deserializer<'a, Error = de::value::Error> {
    let filled = names.zip(cells.map(Cell)).filter(|(_, cell)| !cell.0.is_empty());
    MapDeserializer::new(filled)
}

#[derive(Clone, Copy)]
struct Cell<'a>(&'a str);

impl<'a> IntoDeserializer<'a> for Cell<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Cell<'_> {
    fn parse<T: std::str::FromStr>(self, wanted: &str) -> Result<T, de::value::Error> {
        self.0.parse().map_err(|_| de::Error::custom(format!("{:?} is not {wanted}", self.0)))
    }
}

impl<'de> Deserializer<'de> for Cell<'de> {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_bool(self.parse("true or false")?)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_i32(self.parse("a whole number")?)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_i64(self.parse("a whole number")?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_u32(self.parse("a whole number from 0 on")?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_u64(self.parse("a whole number from 0 on")?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}
