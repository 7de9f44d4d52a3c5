//! The demo's configuration and register, as a city would write them.

use std::fmt::Write;
use std::path::Path;

use tjern_gateway::modbus::transport::Table;
use tjern_gateway::value::{NumberType, Order};
use tjern_readings::store::LakeUrl;

use super::Bus;
use super::city::{Device, Place, Sensor};

/// `tjern.toml`. The periods are short, so that a newcomer sees something happen.
pub(super) fn tjern(lake: &LakeUrl) -> String {
    format!(
        "# The demo city, written anew at each start of `tjern up`.\n\
         version = 1\n\
         lake = \"{lake}\"\n\
         timezone = \"Europe/Oslo\"\n\
         simulated = true                 # the pages say so\n\n\
         [register]\n\
         sites = \"sites.csv\"\n\
         sensors = \"sensors.csv\"\n\n\
         [ingest]\n\
         every = \"1s\"\n\
         landing_grace = \"1h\"\n\n\
         [compact]\n\
         every = \"1min\"\n\n\
         [rollup]\n\
         every = \"1min\"\n\n\
         [vacuum]\n\
         every = \"10min\"\n\
         retention = \"1h\"\n\n\
         [[publish]]\n\
         dataset = \"badetemperatur\"\n\
         title = \"Badetemperaturer (simulerte)\"\n\
         title_en = \"Bathing temperatures (simulated)\"\n\
         quantity = \"water_temperature\"\n\
         every = \"1h\"\n\n\
         [[gateway]]\n\
         config = \"gateway.toml\"\n"
    )
}

/// The gateway's configuration: every bus of the city.
pub(super) fn gateway(lake: &LakeUrl, spool: &Path, buses: &[Bus<'_>]) -> String {
    let mut text = format!(
        "# The demo city's gateway, written anew at each start of `tjern up`.\n\
         version = 1\n\
         gateway = \"demo-01\"\n\
         lake = \"{lake}\"\n\n\
         [spool]\n\
         dir = {}\n\
         max_bytes = \"256MiB\"\n\
         sync_every = \"1s\"\n\n\
         [upload]\n\
         every = \"1s\"\n",
        toml::Value::from(spool.display().to_string())
    );
    buses.iter().for_each(|bus| add_bus(&mut text, bus));
    text
}

fn add_bus(text: &mut String, bus: &Bus<'_>) {
    let Bus { name, device, at, places } = bus;
    let place = match device {
        Device::Tcp => format!("kind = \"modbus-tcp\"\naddress = \"{at}\""),
        Device::Rtu => format!("kind = \"modbus-rtu\"\nport = \"{at}\"\nbaud = 19200\nparity = \"none\""),
        Device::Lines => format!("kind = \"text-lines\"\nport = \"{at}\"\nbaud = 4800"),
    };
    line(text, format_args!("\n[[bus]]\nname = \"{name}\"\n{place}"));
    for place in places {
        line(text, format_args!("\n[[bus.device]]\nname = \"{}\"", place.site));
        if *device != Device::Lines {
            line(text, format_args!("unit_id = {}", place.unit_id));
        }
        place.sensors.iter().for_each(|sensor| add_point(text, *device, place, sensor));
    }
}

fn add_point(text: &mut String, device: Device, place: &Place, sensor: &Sensor) {
    let Sensor { register, every_s, unit, .. } = sensor;
    line(text, format_args!("\n[[bus.device.point]]\nsensor = \"{}\"", place.id(sensor)));
    if device == Device::Lines {
        line(text, format_args!("sentence = \"MTW\"\nfield = 1"));
    } else {
        let (table, address) = (word_of_table(register.table), register.address);
        let (kind, order) = (word_of_type(register.kind), word_of_order(register.order));
        line(text, format_args!("register = \"{table}:{address}\"\ntype = \"{kind}\"\norder = \"{order}\""));
        line(text, format_args!("scale = {:?}", register.scale));
    }
    line(text, format_args!("every = \"{every_s}s\"\nunit = \"{unit}\""));
}

const fn word_of_table(table: Table) -> &'static str {
    match table {
        Table::Coil => "coil",
        Table::Discrete => "discrete",
        Table::Holding => "holding",
        Table::Input => "input",
    }
}

fn word_of_type(kind: NumberType) -> &'static str {
    NumberType::ALL.iter().find(|(_, known)| *known == kind).map_or("f32", |(word, _)| word)
}

fn word_of_order(order: Order) -> &'static str {
    Order::ALL.iter().find(|(_, known)| *known == order).map_or("abcd", |(word, _)| word)
}

/// `sites.csv`.
pub(super) fn sites(places: &[Place]) -> String {
    let mut text = "site,name_nb,name_nn,name_en,kind,latitude,longitude,official_ids\n".to_owned();
    for Place { site, name, kind, latitude, longitude, .. } in places {
        line(&mut text, format_args!("{site},{name},{name},{name},{kind},{latitude},{longitude},"));
    }
    text
}

/// `sensors.csv`.
pub(super) fn sensors(places: &[Place]) -> String {
    let mut text = "id,site,quantity,name_nb,name_nn,name_en,unit,kind,class,interval,low,high,sources\n".to_owned();
    for place in places {
        for sensor in place.sensors {
            let Sensor { quantity, names: [nb, nn, en], unit, kind, class, range: (low, high), every_s, .. } = sensor;
            let (id, site) = (place.id(sensor), place.site);
            line(
                &mut text,
                format_args!("{id},{site},{quantity},{nb},{nn},{en},{unit},{kind},{class},{every_s}s,{low},{high},"),
            );
        }
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a text cannot fail.
    let _ = writeln!(text, "{line}");
}
