using System.Runtime.InteropServices;
using TorchSharp;

namespace NopeGpt.Model.Native;

/// <summary>Calls an operator by its schema name through libtorch's C interface, arguments in the schema's order. Each value is 64 bits:
/// a tensor is an owned handle, a double its bits, an optional a pointer to a value on the heap or 0, a list a handle. The call takes
/// ownership of all of them and leaves its results at the bottom of the same stack.</summary>
internal unsafe ref struct Dispatcher
{
    private const int Capacity = 16;
    private fixed ulong stack[Capacity];
    private int count;

    public void Add(torch.Tensor tensor) => Push(Owned(tensor));

    public void AddOptional(torch.Tensor? tensor) => Push(tensor is null ? 0 : OnHeap(Owned(tensor)));

    public void Add(double value) => Push(BitConverter.DoubleToUInt64Bits(value));

    public void AddOptional(double? value) => Push(value is { } v ? OnHeap(BitConverter.DoubleToUInt64Bits(v)) : 0);

    public void Add(long value) => Push(unchecked((ulong)value));

    public void Add(bool value) => Push(value ? 1UL : 0UL);

    public void Add(scoped ReadOnlySpan<long> list)
    {
        nint handle = NewList(list.Length);
        foreach (long value in list) Check(torch_list_push_back(handle, (ulong)value), "torch_list_push_back");
        Push((ulong)handle);
    }

    public void Add(IReadOnlyList<torch.Tensor> list)
    {
        nint handle = NewList(list.Count);
        for (int i = 0; i < list.Count; i++) Check(torch_list_push_back(handle, Owned(list[i])), "torch_list_push_back");
        Push((ulong)handle);
    }

    /// <summary>`count` times the same tensor.</summary>
    public void AddRepeated(torch.Tensor tensor, int count)
    {
        nint handle = NewList(count);
        for (int i = 0; i < count; i++) Check(torch_list_push_back(handle, Owned(tensor)), "torch_list_push_back");
        Push((ulong)handle);
    }

    /// <summary>Calls an operator whose one result is a tensor. The names end with a zero byte, as UTF-8 literals do.</summary>
    public torch.Tensor CallForTensor(scoped ReadOnlySpan<byte> name, scoped ReadOnlySpan<byte> overload)
    {
        Call(name, overload);
        return torch.Tensor.UnsafeCreateTensor((nint)stack[0]);
    }

    /// <summary>Calls an operator without a result.</summary>
    /// <exception cref="InvalidOperationException">libtorch refused; it has written the reason to the error stream.</exception>
    public void Call(scoped ReadOnlySpan<byte> name, scoped ReadOnlySpan<byte> overload)
    {
        // By reference: an empty span would be pinned as a null pointer, and its zero byte is what libtorch wants.
        fixed (byte* namePointer = &MemoryMarshal.GetReference(name), overloadPointer = &MemoryMarshal.GetReference(overload))
        fixed (ulong* values = stack)
        {
            int error = aoti_torch_call_dispatcher(namePointer, overloadPointer, values);
            if (error != 0) Check(error, System.Text.Encoding.UTF8.GetString(name));
        }
    }

    /// <summary>The address of a tensor's first element. The caller keeps the tensor alive while it uses it.</summary>
    public static nint DataPointer(torch.Tensor tensor)
    {
        Check(aoti_torch_get_data_ptr(tensor.Handle, out nint pointer), "aoti_torch_get_data_ptr");
        GC.KeepAlive(tensor);
        return pointer;
    }

    /// <summary>Where the storage of a tensor begins, and its bytes.</summary>
    public static (nint Start, long Bytes) Storage(torch.Tensor tensor)
    {
        Check(aoti_torch_get_storage_size(tensor.Handle, out long bytes), "aoti_torch_get_storage_size");
        nint start = DataPointer(tensor) - (nint)(tensor.storage_offset() * tensor.element_size());
        return (start, bytes);
    }

    private void Push(ulong value)
    {
        if (count == Capacity) throw new InvalidOperationException($"An operator takes at most {Capacity} arguments here.");
        stack[count++] = value;
    }

    private static ulong Owned(torch.Tensor tensor)
    {
        Check(aoti_torch_new_tensor_handle(tensor.Handle, out nint handle), "aoti_torch_new_tensor_handle");
        GC.KeepAlive(tensor);
        return (ulong)handle;
    }

    // libtorch frees it with the C++ runtime's delete, which is the C library's free.
    private static ulong OnHeap(ulong value)
    {
        ulong* memory = (ulong*)NativeMemory.Alloc(sizeof(ulong));
        *memory = value;
        return (ulong)memory;
    }

    private static nint NewList(int size)
    {
        Check(torch_new_list_reserve_size((nuint)size, out nint handle), "torch_new_list_reserve_size");
        return handle;
    }

    private static void Check(int error, string name)
    {
        if (error != 0) throw new InvalidOperationException($"libtorch refused {name}; its reason is on the error stream.");
    }

    [DllImport("torch_cpu")]
    private static extern int aoti_torch_call_dispatcher(byte* name, byte* overload, ulong* stack);

    [DllImport("torch_cpu")]
    private static extern int aoti_torch_new_tensor_handle(nint tensor, out nint handle);

    [DllImport("torch_cpu")]
    private static extern int aoti_torch_get_data_ptr(nint tensor, out nint pointer);

    [DllImport("torch_cpu")]
    private static extern int aoti_torch_get_storage_size(nint tensor, out long bytes);

    [DllImport("torch_cpu")]
    private static extern int torch_new_list_reserve_size(nuint size, out nint list);

    [DllImport("torch_cpu")]
    private static extern int torch_list_push_back(nint list, ulong value);
}
