namespace NopeGpt.Data.Documents;

/// <summary>One row of a source: values by column name, in the source's order. Only the columns that were asked for are there.</summary>
public sealed class Record
{
    private readonly string[] _names;
    private readonly FieldValue[] _values;

    /// <param name="names">Column names. Rows of one shape may share the array; it is never changed.</param>
    /// <param name="values">One value for each name.</param>
    /// <param name="file">The file as it is named to people.</param>
    /// <param name="row">Where in the file, from 1: the line in text, jsonl and csv, the element in json, the row in parquet.</param>
    /// <exception cref="ArgumentException">There are more or fewer values than names.</exception>
    public Record(string[] names, FieldValue[] values, string file = "", long row = 0)
    {
        ArgumentNullException.ThrowIfNull(names);
        ArgumentNullException.ThrowIfNull(values);
        if (names.Length != values.Length) throw new ArgumentException($"A record of {names.Length} columns needs as many values, not {values.Length}.", nameof(values));
        (_names, _values, File, Row) = (names, values, file, row);
    }

    public string File { get; }

    public long Row { get; }

    public IReadOnlyList<string> Names => _names;

    public IReadOnlyList<FieldValue> Values => _values;

    /// <summary>The value of a column; one of kind <see cref="FieldKind.Null"/> when the row has no such column.</summary>
    public FieldValue this[string name]
    {
        get
        {
            // Rows have a handful of columns: a search is quicker than a table.
            for (int i = 0; i < _names.Length; i++)
                if (string.Equals(_names[i], name, StringComparison.Ordinal)) return _values[i];
            return default;
        }
    }

    /// <summary>The text of a column; null when the row has no such column or it holds something else.</summary>
    public string? Text(string name) => this[name].AsText;

    public override string ToString() => $"{File}, row {Row}: {string.Join(", ", _names)}";
}
