namespace NopeGpt.Data.Documents.Parquet;

internal enum PhysicalType
{
    Boolean = 0,
    Int32 = 1,
    Int64 = 2,
    Int96 = 3,
    Float = 4,
    Double = 5,
    ByteArray = 6,
    FixedLengthByteArray = 7,
}

internal enum Repetition
{
    Required = 0,
    Optional = 1,
    Repeated = 2,
}

/// <summary>A column or group of a parquet schema, with the levels at which it is there
/// (github.com/apache/parquet-format, README "Nested Encoding" and LogicalTypes.md "Lists").</summary>
internal sealed class SchemaNode
{
    public required string Name { get; init; }

    public required Repetition Repetition { get; init; }

    /// <summary>Null for a group.</summary>
    public PhysicalType? Type { get; init; }

    /// <summary>Bytes of a fixed-length value.</summary>
    public int TypeLength { get; init; }

    /// <summary>True where the group is marked as a list.</summary>
    public bool IsList { get; init; }

    public bool IsUnsigned { get; init; }

    public SchemaNode[] Children { get; init; } = [];

    /// <summary>The definition level from which this node is there (not null, and not in an empty list).</summary>
    public int Definition { get; private set; }

    /// <summary>The number of lists that this node is in, itself included.</summary>
    public int RepetitionDepth { get; private set; }

    /// <summary>Place of a column among the file's; of a group, that of its first column. -1 for a group without columns.</summary>
    public int FirstLeaf { get; private set; } = -1;

    /// <summary>The number of columns in this node.</summary>
    public int Leaves { get; private set; }

    public bool IsLeaf => Type is not null;

    /// <summary>What a list's elements are: the repeated node itself in files of old writers, else what is inside it.</summary>
    public SchemaNode? ListElement { get; private set; }

    /// <summary>Names of the children, for the records of a group.</summary>
    public string[] ChildNames { get; private set; } = [];

    /// <summary>Works out levels and places of this node and everything below.</summary>
    public void Place(int definition, int repetitions, ref int leaf)
    {
        Definition = definition + (Repetition == Repetition.Required ? 0 : 1);
        RepetitionDepth = repetitions + (Repetition == Repetition.Repeated ? 1 : 0);
        ChildNames = [.. Children.Select(c => c.Name)];
        int first = leaf;
        if (IsLeaf) leaf++;
        foreach (SchemaNode child in Children) child.Place(Definition, RepetitionDepth, ref leaf);
        Leaves = leaf - first;
        if (Leaves > 0) FirstLeaf = first;
        if (IsList && Children is [{ Repetition: Repetition.Repeated } repeated]) ListElement = ElementOf(repeated);
    }

    public IEnumerable<SchemaNode> Columns() => IsLeaf ? [this] : Children.SelectMany(c => c.Columns());

    /// <summary>The rules of LogicalTypes.md for files written before lists had three levels.</summary>
    private SchemaNode ElementOf(SchemaNode repeated) =>
        repeated.Children is [{ Repetition: not Repetition.Repeated } only] && repeated.Name != "array" && repeated.Name != Name + "_tuple" ? only : repeated;
}
