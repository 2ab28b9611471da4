"""What a detector is: layers, each a grid over two axes. Knows no files and no models."""

from calo_train.geometry.geometry import Axis, Geometry, Layer
from calo_train.geometry.regroup import Regrouping
from calo_train.geometry.sources import geometry_from_mapping, geometry_from_xml

__all__ = ["Axis", "Geometry", "Layer", "Regrouping", "geometry_from_mapping", "geometry_from_xml"]
