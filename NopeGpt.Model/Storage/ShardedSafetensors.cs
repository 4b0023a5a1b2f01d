using System.Globalization;
using System.Text.RegularExpressions;
using static TorchSharp.torch;

namespace NopeGpt.Model.Storage;

/// <summary>Tensors spread over several safetensors files (shards) of one folder, with an index in JSON:
/// {"metadata": {"total_size": bytes}, "weight_map": {tensor: file}}. Opening it opens every shard and checks that index and shards tell the
/// same. The total_size is not looked at: the files on the Hub have it in several meanings, and the shards say all of it.</summary>
public sealed partial class ShardedSafetensors : TensorSource
{
    /// <summary>Bytes of tensors in one shard, as the Hub's own writer limits them.</summary>
    public const long DefaultShardSize = 5_000_000_000;

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

    /// <summary>Writes a model into a folder under the names of the Hub: model.safetensors where everything fits into one shard, otherwise
    /// model-00001-of-00003.safetensors and so on with their index. All of it is written aside and flushed, then renamed, the index last;
    /// after that an older model's files are deleted. Over shards of the same number a crash between the renames leaves no index, not a mixture.</summary>
    /// <param name="tensors">Names and tensors of any device, which the shards take in this order.</param>
    /// <param name="shardSize">Bytes of tensors that a shard has at most; a larger tensor is alone in its own.</param>
    /// <returns>The file to open: the one file, or the index.</returns>
    /// <exception cref="ArgumentException">A name is there twice or reserved, or safetensors has no such type.</exception>
    /// <exception cref="IOException">The disk is full or unwritable. Nothing new is left behind.</exception>
    public static string Save(string folder, IEnumerable<(string Name, Tensor Tensor)> tensors, long shardSize = DefaultShardSize, IReadOnlyDictionary<string, string>? metadata = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(shardSize, 1);
        List<List<(string Name, Tensor Tensor)>> parts = Split(SafetensorsWriter.Checked(tensors, metadata), shardSize);
        folder = System.IO.Path.GetFullPath(folder);
        Directory.CreateDirectory(folder);
        string single = System.IO.Path.Combine(folder, SingleName), index = System.IO.Path.Combine(folder, IndexName);
        if (parts.Count == 1)
        {
            SafetensorsFile.Save(single, parts[0], metadata);
            File.Delete(index);
            DeleteShards(folder, []);
            return single;
        }
        string[] names = [.. parts.Select((_, i) => string.Create(CultureInfo.InvariantCulture, $"model-{i + 1:D5}-of-{parts.Count:D5}.safetensors"))];
        (string Aside, string Final)[] files = [.. names.Append(IndexName).Select(n => System.IO.Path.Combine(folder, n)).Select(p => (SafetensorsFile.Aside(p), p))];
        try
        {
            for (int i = 0; i < parts.Count; i++) SafetensorsWriter.Write(files[i].Aside, parts[i], metadata);
            SafetensorsIndex.Write(files[^1].Aside, parts.SelectMany((part, i) => part.Select(t => (t.Name, names[i]))), parts.Sum(p => p.Sum(t => SafetensorsWriter.Bytes(t.Tensor))));
            if (names.Any(n => File.Exists(System.IO.Path.Combine(folder, n)))) File.Delete(index);
            foreach ((string aside, string final) in files) File.Move(aside, final, overwrite: true);
            CheckpointFolder.FlushFolder(folder);
        }
        finally
        {
            foreach ((string aside, _) in files) File.Delete(aside);
        }
        File.Delete(single); // a reader would take it before the index
        DeleteShards(folder, names);
        return index;
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
                if (!owners.TryAdd(name, shard)) throw Wrong(index, name, $"it is in {owners[name].Path} and in {shard.Path}");
        }
        foreach ((string name, SafetensorsFile shard) in owners)
        {
            if (!map.TryGetValue(name, out string? file)) throw Wrong(index, name, $"it is in {shard.Path} and not in the weight_map");
            if (System.IO.Path.Combine(folder, file) != shard.Path) throw Wrong(index, name, $"it is in {shard.Path}, the weight_map says {file}");
        }
        foreach ((string name, string file) in map)
            if (!owners.ContainsKey(name)) throw Wrong(index, name, $"the weight_map says {file}, which has no such tensor");
        return owners;
    }

    private static InvalidDataException Wrong(string index, string tensor, string reason) =>
        new($"{index}: tensor {SafetensorsHeader.Short(tensor)}: {reason}; download index and shards again, or write them again.");

    private static List<List<(string Name, Tensor Tensor)>> Split((string Name, Tensor Tensor)[] tensors, long shardSize)
    {
        List<List<(string Name, Tensor Tensor)>> parts = [[]];
        long filled = 0;
        foreach ((string Name, Tensor Tensor) item in tensors)
        {
            long bytes = SafetensorsWriter.Bytes(item.Tensor);
            if (parts[^1].Count > 0 && bytes > shardSize - filled)
            {
                parts.Add([]);
                filled = 0;
            }
            parts[^1].Add(item);
            filled += bytes;
        }
        return parts;
    }

    private static void DeleteShards(string folder, IReadOnlyCollection<string> kept)
    {
        foreach (string path in Directory.EnumerateFiles(folder, "model-*.safetensors"))
            if (System.IO.Path.GetFileName(path) is var name && ShardName().IsMatch(name) && !kept.Contains(name)) File.Delete(path);
    }

    [GeneratedRegex("^model-[0-9]{5,}-of-[0-9]{5,}[.]safetensors$", RegexOptions.CultureInvariant)]
    private static partial Regex ShardName();
}
