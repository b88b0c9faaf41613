// SPDX-License-Identifier: GPL-2.0

//! Stand-ins for the Python symbols that the core's file refers to.
//!
//! The core never runs Python here. Its dynamic relocations still want the
//! symbols: objects are blank memory, functions say who called and abort.

/// Blank memory in the place of a Python object.
#[repr(C, align(16))]
pub struct Object([u8; 1024]);

#[cold]
fn called(name: &str) -> ! {
    eprintln!("bochs-vmm: internal error: the core called Python's {name}");
    std::process::abort()
}

macro_rules! objects {
    ($($name:ident)*) => {$(
        #[no_mangle]
        #[used]
        #[allow(non_upper_case_globals)]
        static mut $name: Object = Object([0; 1024]);
    )*};
}

macro_rules! functions {
    ($($name:ident)*) => {$(
        #[no_mangle]
        #[allow(non_snake_case)]
        extern "C" fn $name() {
            called(stringify!($name))
        }
    )*};
}

objects! {
    PyBaseObject_Type PyBytes_Type PyFloat_Type PyList_Type PyLong_Type PyModule_Type
    PyProperty_Type PyTuple_Type PyType_Type PyUnicode_Type Py_GenericAliasType
    PyExc_AttributeError PyExc_BufferError PyExc_ImportError PyExc_IndexError PyExc_KeyError
    PyExc_MemoryError PyExc_OverflowError PyExc_RuntimeError PyExc_RuntimeWarning
    PyExc_StopIteration PyExc_SystemError PyExc_TypeError PyExc_ValueError
    _PyWeakref_RefType _Py_FalseStruct _Py_NoneStruct _Py_NotImplementedStruct _Py_TrueStruct
}

functions! {
PyCMethod_New PyCallable_Check PyCapsule_GetContext PyCapsule_GetName
PyCapsule_GetPointer PyCapsule_New PyCapsule_SetContext PyDict_Contains
PyDict_GetItemWithError PyDict_New PyDict_SetItem PyErr_Clear PyErr_Format
PyErr_GetRaisedException PyErr_NoMemory PyErr_Occurred PyErr_SetRaisedException
PyErr_SetString PyErr_WarnFormat PyException_GetTraceback PyFrame_GetBack
PyFrame_GetCode PyFrame_GetLineNumber PyGILState_Check PyGILState_Ensure
PyGILState_Release PyImport_AddModule PyImport_ImportModule PyInterpreterState_Get
PyInterpreterState_GetDict PyIter_Next PyList_Append PyList_New PyLong_AsLong
PyLong_AsUnsignedLong PyLong_FromLong PyLong_FromLongLong PyLong_FromSize_t
PyLong_FromUnsignedLong PyLong_FromUnsignedLongLong PyMem_Free PyMem_Malloc
PyModule_AddObject PyModule_Create2 PyModule_GetName PyModule_NewObject PyNumber_Long
PyNumber_Lshift PyNumber_Or PyNumber_Subtract PyObject_ClearWeakRefs PyObject_Free
PyObject_GC_Del PyObject_GC_UnTrack PyObject_GenericGetAttr PyObject_GenericGetDict
PyObject_GenericSetDict PyObject_GetAttr PyObject_GetAttrString PyObject_GetIter
PyObject_HasAttrString PyObject_Init PyObject_IsSubclass PyObject_Malloc
PyObject_Realloc PyObject_Repr PyObject_SetAttr PyObject_SetAttrString PyObject_SetItem
PyObject_Str PyObject_Vectorcall PyObject_VectorcallMethod PySequence_Check
PySequence_Tuple PyTuple_New PyType_FromMetaclass PyType_FromSpec PyType_GenericAlloc
PyType_GenericNew PyType_GetName PyType_IsSubtype PyUnicode_AsUTF8AndSize
PyUnicode_FromFormat PyUnicode_FromString PyUnicode_FromStringAndSize
PyUnicode_InternFromString PyUnicode_InternInPlace PyVectorcall_Call PyWeakref_NewRef
Py_AtExit Py_GenericAlias _PyObject_GC_New _PyObject_New _Py_Dealloc}
