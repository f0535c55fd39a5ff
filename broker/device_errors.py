"""
What may be wrong with devices and with what is sealed to them.

* BadRequest
  x InvalidDeviceKey
* Missing
  x DeviceNotFound
* Conflict
  x DeviceKeyRequired, TooManyDevices, OutputNotSealed
"""

from http import HTTPStatus

from broker.errors import BadRequest, Conflict, Missing


class InvalidDeviceKey(BadRequest):
    """Nothing can be sealed to this key, or nothing opened with it: its kind, length or curve is wrong."""

    code = "invalid_device_key"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class DeviceNotFound(Missing):
    """This user has no device with this id."""

    code = "device_not_found"


class DeviceKeyRequired(Conflict):
    """Outputs are sealed here, and this user has no device to seal them to; POST /v1/me/devices."""

    code = "device_key_required"


class TooManyDevices(Conflict):
    """This user has as many devices as there may be; delete one that is not used any more."""

    code = "too_many_devices"


class OutputNotSealed(Conflict):
    """The output is not sealed; it has no keys for devices."""

    code = "output_not_sealed"
