// Names for torch's ProcessGroupGloo.hpp; see third_party/gloo/BUILD.
#ifndef HEDDLE_THIRD_PARTY_GLOO_TRANSPORT_DEVICE_H_
#define HEDDLE_THIRD_PARTY_GLOO_TRANSPORT_DEVICE_H_

namespace gloo::transport {
class Device;
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};
}  // namespace gloo::transport

#endif  // HEDDLE_THIRD_PARTY_GLOO_TRANSPORT_DEVICE_H_
