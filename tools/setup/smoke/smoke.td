include "mlir/IR/OpBase.td"
def Smoke_Dialect : Dialect { let name = "smoke"; let cppNamespace = "::smoke"; }
