namespace NopeGpt.Data.Documents;

/// <summary>A place between two shards of a source, from which reading can go on. The default is the beginning.</summary>
/// <param name="Shard">The number of shards before it.</param>
/// <param name="File">Place of the file in the source.</param>
/// <param name="Offset">Bytes into the decompressed file, or row groups into a parquet file.</param>
/// <param name="Rows">Rows of the file before it.</param>
public readonly record struct ShardPosition(long Shard, int File, long Offset, long Rows);
