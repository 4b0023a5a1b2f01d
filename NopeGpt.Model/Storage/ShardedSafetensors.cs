namespace NopeGpt.Model.Storage;

/// <summary>Tensors spread over several safetensors files (shards) of one folder, with an index in JSON:
/// {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}}. Opening it opens every shard and checks that index and shards tell the
/// same. The total_size is not looked at: the files on the Hub have it in several meanings, and the shards say all of it.</summary>
public sealed class ShardedSafetensors : TensorSource
{
    private readonly SafetensorsFile[] shards;
    private readonly Dictionary<string, SafetensorsFile> owners;

    private ShardedSafetensors(string path, SafetensorsFile[] shards, Dictionary<string, SafetensorsFile> owners)
    {
        (Path, this.shards, this.owners) = (path, shards, owners);
        Names = [.. shards.SelectMany(s => s.Names)];
        Dictionary<string, string> metadata = new(StringComparer.Ordinal);
        foreach ((string key, string value) in shards.SelectMany(s => s.Metadata)) metadata.TryAdd(key, value);
        Metadata = metadata;
    }

    public override string Path { get; }

    /// <summary>The names of all tensors, shard after shard, in the order of their data.</summary>
    public override IReadOnlyList<string> Names { get; }

    /// <summary>What the shards have noted; of two notes under one key the one in the first shard.</summary>
    public override IReadOnlyDictionary<string, string> Metadata { get; }

    /// <summary>The files with the data, in the order of their names.</summary>
    public IReadOnlyList<string> Shards => [.. shards.Select(s => s.Path)];

    /// <summary>Opens an index and its shards, which lie in its folder or below.</summary>
    /// <exception cref="FileNotFoundException">There is no such index.</exception>
    /// <exception cref="InvalidDataException">The index or a shard is damaged or missing, or they contradict each other; the message names the file, the tensor and the reason.</exception>
    public static new ShardedSafetensors Open(string path)
    {
        IReadOnlyDictionary<string, string> map = SafetensorsIndex.Read(path);
        string folder = System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(path))!;
        List<SafetensorsFile> shards = [];
        try
        {
            foreach (string file in map.Values.Distinct(StringComparer.Ordinal).Order(StringComparer.Ordinal)) shards.Add(OpenShard(path, folder, file));
            return new ShardedSafetensors(path, [.. shards], Owners(path, folder, map, shards));
        }
        catch
        {
            foreach (SafetensorsFile shard in shards) shard.Dispose();
            throw;
        }
    }

    protected internal override SafetensorsEntry? Find(string name) => owners.TryGetValue(name, out SafetensorsFile? shard) ? shard.Find(name) : null;

    protected internal override void Read(string name, SafetensorsEntry entry, nint destination) => owners[name].Read(name, entry, destination);

    protected override void Dispose(bool disposing)
    {
        foreach (SafetensorsFile shard in shards) shard.Dispose();
    }

    private static SafetensorsFile OpenShard(string index, string folder, string file)
    {
        string path = System.IO.Path.Combine(folder, file);
        try
        {
            return SafetensorsFile.Open(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new InvalidDataException($"{path} is missing, and {index} names it for some of the tensors; restore or download the file.", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"{path} cannot be read ({e.Message}), and {index} names it for some of the tensors; restore or download the file.", e);
        }
    }

    private static Dictionary<string, SafetensorsFile> Owners(string index, string folder, IReadOnlyDictionary<string, string> map, List<SafetensorsFile> shards)
    {
        Dictionary<string, SafetensorsFile> owners = new(map.Count, StringComparer.Ordinal);
        foreach (SafetensorsFile shard in shards)
        {
            foreach (string name in shard.Names)
            {
                if (owners.TryGetValue(name, out SafetensorsFile? other)) throw Wrong(index, name, $"it is in {other.Path} and in {shard.Path}");
                if (!map.TryGetValue(name, out string? file)) throw Wrong(index, name, $"it is in {shard.Path} and not in the weight_map");
                if (System.IO.Path.Combine(folder, file) != shard.Path) throw Wrong(index, name, $"it is in {shard.Path}, the weight_map says {file}");
                owners.Add(name, shard);
            }
        }
        foreach ((string name, string file) in map)
            if (!owners.ContainsKey(name)) throw Wrong(index, name, $"the weight_map says {file}, which has no such tensor");
        return owners;
    }

    private static InvalidDataException Wrong(string index, string tensor, string reason) =>
        new($"{index}: tensor {SafetensorsHeader.Short(tensor)}: {reason}; download index and shards again, or write them again.");
}
