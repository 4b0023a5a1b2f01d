using Microsoft.Win32.SafeHandles;

namespace NopeGpt.Data.Documents.Parquet;

/// <summary>Puts the rows of one row group together from the entries of the wanted columns
/// (S. Melnik et al., "Dremel", VLDB 2010, section 4.3, as a walk over the schema).</summary>
internal sealed class RowGroupReader : IDisposable
{
    private readonly RowGroup _group;
    private readonly SchemaNode[] _columns;
    private readonly ColumnCursor?[] _cursors;
    private readonly ColumnCursor[] _open;
    private readonly Utf8Text _text;

    /// <param name="columns">Columns of the schema's root, in the order in which they are wanted.</param>
    /// <param name="utf8">Whether texts stay UTF-8.</param>
    public RowGroupReader(SafeFileHandle file, RowGroup group, IEnumerable<SchemaNode> columns, bool utf8)
    {
        (_group, _text) = (group, new(utf8));
        _columns = [.. columns];
        _cursors = new ColumnCursor?[group.Columns.Length];
        foreach (SchemaNode leaf in _columns.SelectMany(c => c.Columns()))
            _cursors[leaf.FirstLeaf] = new(file, leaf, group.Columns[leaf.FirstLeaf], _text);
        _open = [.. _cursors.OfType<ColumnCursor>()];
    }

    /// <summary>True when a text of the last row was not UTF-8 and had to be repaired.</summary>
    public bool Repaired { get; private set; }

    /// <summary>The values of each row in turn, one for each wanted column.</summary>
    /// <exception cref="InvalidDataException">The data is damaged from this row on.</exception>
    public IEnumerable<FieldValue[]> Rows()
    {
        foreach (ColumnCursor cursor in _open) cursor.Advance();
        for (long row = 0; row < _group.Rows; row++)
        {
            foreach (ColumnCursor cursor in _open)
                if (cursor.AtEnd || cursor.Repetition != 0) throw new InvalidDataException($"the columns of a row group do not have the {_group.Rows} rows that it claims");
            _text.Repaired = false;
            FieldValue[] values = new FieldValue[_columns.Length];
            for (int i = 0; i < values.Length; i++) values[i] = Read(_columns[i]);
            Repaired = _text.Repaired;
            yield return values;
        }
    }

    public void Dispose()
    {
        foreach (ColumnCursor cursor in _open) cursor.Dispose();
    }

    private FieldValue Read(SchemaNode node)
    {
        if (node.Leaves == 0) return default;
        return node.Repetition == Repetition.Repeated ? ReadList(node, node) : ReadOne(node);
    }

    private FieldValue ReadOne(SchemaNode node)
    {
        ColumnCursor first = _cursors[node.FirstLeaf]!;
        if (node.IsLeaf)
        {
            FieldValue value = first.Value();
            first.Advance();
            return value;
        }
        if (node.Repetition == Repetition.Optional && first.Definition < node.Definition)
        {
            PassEntry(node);
            return default;
        }
        return node.ListElement is { } element ? ReadList(node.Children[0], element) : ReadGroup(node);
    }

    private FieldValue ReadList(SchemaNode repeated, SchemaNode element)
    {
        ColumnCursor first = _cursors[repeated.FirstLeaf]!;
        if (first.Definition < repeated.Definition)
        {
            PassEntry(repeated);
            return FieldValue.Of(Array.Empty<FieldValue>());
        }
        List<FieldValue> items = [];
        do items.Add(element != repeated ? Read(element) : repeated.IsLeaf ? ReadOne(repeated) : ReadGroup(repeated));
        while (!first.AtEnd && first.Repetition == repeated.RepetitionDepth);
        return FieldValue.Of(items.ToArray());
    }

    private FieldValue ReadGroup(SchemaNode node)
    {
        FieldValue[] values = new FieldValue[node.Children.Length];
        for (int i = 0; i < values.Length; i++) values[i] = Read(node.Children[i]);
        return FieldValue.Of(new Record(node.ChildNames, values));
    }

    /// <summary>Leaves the one entry that says that there is nothing here.</summary>
    private void PassEntry(SchemaNode node)
    {
        for (int leaf = node.FirstLeaf; leaf < node.FirstLeaf + node.Leaves; leaf++) _cursors[leaf]!.Advance();
    }
}
