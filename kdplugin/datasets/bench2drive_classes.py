"""Classes of Bench2Drive: what CARLA's names of actors and props mean to a detector.

Source: ``NameMapping`` and ``class_names`` in the configurations of Bench2DriveZoo and ORION. Written here as rules, so
that a model of car that the list does not have is a car.
"""

from __future__ import annotations

CLASSES = (
    'car', 'van', 'truck', 'bicycle', 'traffic_sign', 'traffic_cone', 'traffic_light', 'pedestrian', 'others',
)  # fmt: skip
PALETTE = [
    (0, 130, 200), (70, 240, 240), (0, 0, 128), (145, 30, 180), (255, 225, 25), (245, 130, 48), (230, 25, 75),
    (60, 180, 75), (128, 128, 128),
]  # fmt: skip
EXACT = {
    'vehicle.bh.crossbike': 'bicycle',
    'vehicle.diamondback.century': 'bicycle',
    'vehicle.gazelle.omafiets': 'bicycle',
    'vehicle.ford.ambulance': 'van',
    'vehicle.carlamotors.firetruck': 'truck',
    'traffic.traffic_light': 'traffic_light',
    'static.prop.warningconstruction': 'traffic_cone',
    'static.prop.warningaccident': 'traffic_cone',
    'static.prop.trafficwarning': 'traffic_cone',
    'static.prop.constructioncone': 'traffic_cone',
    'static.prop.dirtdebris01': 'others',
    'static.prop.dirtdebris02': 'others',
}
BEGINNINGS = {
    '/Game/Carla/Static/Car/4Wheeled/ParkedVehicles/VolkswagenT2/': 'van',
    '/Game/Carla/Static/Car/': 'car',
    'vehicle.': 'car',
    'walker.': 'pedestrian',
    'traffic.': 'traffic_sign',
}


def class_of(name: str) -> int | None:
    """Return the number of the class that a name in the infos stands for, None for one that is no object.

    Example:
        >>> [class_of(name) for name in ('vehicle.audi.tt', 'walker.pedestrian.0004', 'static.prop.bench')]
        [0, 7, None]
    """
    if name in CLASSES:
        return CLASSES.index(name)
    label = EXACT.get(name) or next((label for start, label in BEGINNINGS.items() if name.startswith(start)), None)
    return None if label is None else CLASSES.index(label)
