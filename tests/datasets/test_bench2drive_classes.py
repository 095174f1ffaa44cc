from __future__ import annotations

import pytest

from kdplugin.datasets.bench2drive_classes import CLASSES, PALETTE, class_of

KNOWN = {
    'vehicle.lincoln.mkz_2020': 'car',
    'vehicle.bh.crossbike': 'bicycle',
    'vehicle.ford.ambulance': 'van',
    'vehicle.carlamotors.firetruck': 'truck',
    '/Game/Carla/Static/Car/4Wheeled/ParkedVehicles/Charger/SM_ChargerParked.SM_ChargerParked': 'car',
    '/Game/Carla/Static/Car/4Wheeled/ParkedVehicles/VolkswagenT2/SM_VolkswagenT2_2021_Parked.x': 'van',
    'traffic.speed_limit.30': 'traffic_sign',
    'traffic.stop': 'traffic_sign',
    'traffic.traffic_light': 'traffic_light',
    'static.prop.constructioncone': 'traffic_cone',
    'static.prop.trafficwarning': 'traffic_cone',
    'walker.pedestrian.0047': 'pedestrian',
    'static.prop.dirtdebris02': 'others',
    'pedestrian': 'pedestrian',
    'static.prop.bench': None,
}


@pytest.mark.parametrize(('name', 'label'), KNOWN.items())
def test_names_of_carla(name: str, label: str | None) -> None:
    assert class_of(name) == (None if label is None else CLASSES.index(label))


def test_each_class_has_its_colour() -> None:
    assert len(CLASSES) == len(set(PALETTE)) == 9
