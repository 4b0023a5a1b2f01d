using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace NopeGpt.Data.Tokenization;

/// <summary>Appends ids to a list through its own memory. Until <see cref="Complete"/> the list's length is not right.</summary>
internal ref struct IdWriter
{
    private readonly List<int> _list;
    private Span<int> _memory;
    private int _count;

    /// <param name="expected">Ids for which there is room at once; more are found as they come.</param>
    public IdWriter(List<int> list, int expected)
    {
        (_list, _count) = (list, list.Count);
        Grow(expected);
    }

    /// <summary>The place of the next id.</summary>
    public readonly ref int Next => ref Unsafe.Add(ref MemoryMarshal.GetReference(_memory), _count);

    /// <summary>Makes room for so many more ids.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Reserve(int room)
    {
        if (_memory.Length - _count < room) Grow(room);
    }

    /// <summary>Places for the next ids.</summary>
    public readonly Span<int> Room(int length) => _memory.Slice(_count, length);

    /// <summary>So many of the next ids are written.</summary>
    public void Advance(int count) => _count += count;

    public readonly void Complete() => CollectionsMarshal.SetCount(_list, _count);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Grow(int room)
    {
        CollectionsMarshal.SetCount(_list, _count);
        _list.EnsureCapacity(_count + room);
        CollectionsMarshal.SetCount(_list, _list.Capacity);
        _memory = CollectionsMarshal.AsSpan(_list);
    }
}
