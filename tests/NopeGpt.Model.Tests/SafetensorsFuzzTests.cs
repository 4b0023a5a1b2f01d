using System.Buffers.Binary;
using System.Text;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Damaged files end with an error that names the file, or with a load: no other exception, no crash, and no memory that a number
/// in the file alone asked for.</summary>
public sealed class SafetensorsFuzzTests : IDisposable
{
    private const int Files = 10_000, Indexes = 2_000;

    /// <summary>Bytes that opening and reading may take beside a small multiple of the file: names, entries and the words of an error.</summary>
    private const long ManagedBase = 64_000, ManagedFactor = 16;

    private static readonly string[] Types = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0", "F4", "F6_E2M3", "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "f32", "", "Q4"];

    private static readonly string[] Numbers =
    [
        "0", "1", "2", "3", "8", "16", "255", "65536", "2147483648", "4294967295", "4294967296", "4611686018427387904", "9223372036854775807", "9223372036854775808",
        "18446744073709551615", "18446744073709551616", "99999999999999999999999999", "-1", "-0", "1.5", "1e3", "1E400", "null", "true", "\"4\"", "[]", "{}", "",
    ];

    private readonly TemporaryFolder folder = TemporaryFolder.InMemory();

    public SafetensorsFuzzTests() => TorchRuntime.Load();

    private string Path => folder["model.safetensors"];

    public void Dispose() => folder.Dispose();

    [Fact]
    public void Ten_thousand_damaged_files_end_with_an_error_that_names_the_file_or_a_load()
    {
        byte[][] seeds = [.. Seeds()];
        int seed = Environment.TickCount, loads = 0;
        for (int i = 0; i < Files; i++)
        {
            Random random = new(unchecked(seed + i));
            byte[] bytes = Mutated(seeds[i % seeds.Length], random);
            File.WriteAllBytes(Path, bytes);
            try
            {
                if (Survives(() => SafetensorsFile.Open(Path), bytes.Length)) loads++;
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {seed}, file {i}, {Convert.ToHexString(bytes)}: {e}");
            }
        }
        Assert.True(loads is > Files / 50 and < Files / 2, $"seed {seed}: {loads} loads of {Files}; the damage is too little or too much to test anything");
    }

    [Fact]
    public void Two_thousand_damaged_indexes_end_with_an_error_that_names_the_file_or_a_load()
    {
        using (DisposeScope scope = NewDisposeScope()) ShardedSafetensors.Save(folder.Path, [("a", ones(2)), ("b", ones(3)), ("c.weight", ones(1))], 12);
        string path = folder[TensorSource.IndexName];
        byte[] good = File.ReadAllBytes(path);
        int seed = Environment.TickCount, loads = 0;
        for (int i = 0; i < Indexes; i++)
        {
            Random random = new(unchecked(seed + i));
            byte[] bytes = random.Next(2) == 0 ? Damaged(good, random) : Encoding.UTF8.GetBytes(Edited(Encoding.UTF8.GetString(good), random));
            File.WriteAllBytes(path, bytes);
            try
            {
                if (Survives(() => ShardedSafetensors.Open(path), bytes.Length + 1000)) loads++;
            }
            catch (Exception e)
            {
                Assert.Fail($"seed {seed}, index {i}, {Encoding.UTF8.GetString(bytes)}: {e}");
            }
        }
        Assert.True(loads is > Indexes / 50 and < Indexes / 2, $"seed {seed}: {loads} loads of {Indexes}; the damage is too little or too much to test anything");
    }

    /// <summary>True where everything was loaded, false where an error said why not. Anything else goes on up.</summary>
    private bool Survives(Func<TensorSource> open, long length)
    {
        long before = GC.GetAllocatedBytesForCurrentThread(), tensors = 0;
        try
        {
            using DisposeScope scope = NewDisposeScope();
            using TensorSource source = open();
            foreach (string name in source.Names)
            {
                SafetensorsEntry entry = source.Info(name);
                tensors += entry.Length;
                Assert.True(tensors <= length, $"tensors of {tensors} bytes in a file of {length}");
                Tensor tensor = source.Load(name);
                Assert.Equal(entry.Length, tensor.numel() * tensor.element_size());
                Assert.Equal(entry.Shape, tensor.shape);
            }
            return true;
        }
        catch (InvalidDataException e)
        {
            Assert.Contains(folder.Path, e.Message);
            Assert.InRange(e.Message.Length, folder.Path.Length + 10, 1200);
            return false;
        }
        finally
        {
            Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, ManagedBase + ManagedFactor * length);
        }
    }

    private IEnumerable<byte[]> Seeds()
    {
        using DisposeScope scope = NewDisposeScope();
        (string, Tensor)[][] models =
        [
            [("a", randn(2, 3)), ("b", ones(5, ScalarType.Bool)), ("c", zeros(0, 2)), ("d", tensor(7L))],
            [("h", zeros(2, 2, ScalarType.ComplexFloat32)), ("i", ones(4).to(SafetensorsTypes.Float8E4M3)), ("j", zeros(3, ScalarType.BFloat16)), ("k", ones(2).to(SafetensorsTypes.Unsigned16))],
            [.. Enumerable.Range(0, 12).Select(i => ($"layers.{i}.weight", full([2, 2], i, ScalarType.Int16)))],
        ];
        foreach ((string, Tensor)[] model in models)
        {
            SafetensorsFile.Save(Path, model, new Dictionary<string, string> { ["format"] = "pt", ["ü"] = "\n\"" });
            yield return File.ReadAllBytes(Path);
        }
        // Padding as another writer leaves it, none.
        yield return SafetensorsBytes.File("""{"x":{"dtype":"F4","shape":[3,4],"data_offsets":[0,6]},"y":{"dtype":"U8","shape":[],"data_offsets":[6,7]}}""", [1, 2, 3, 4, 5, 6, 7]);
    }

    // Half of the damage hits bytes, half the header as JSON, whose length is then made right again: otherwise nothing behind the length is reached.
    private static byte[] Mutated(byte[] good, Random random)
    {
        if (random.Next(2) == 0) return Damaged(good, random);
        int header = (int)BinaryPrimitives.ReadInt64LittleEndian(good);
        string json = Encoding.UTF8.GetString(good, 8, header);
        for (int times = random.Next(1, 4); times > 0; times--) json = Edited(json, random);
        byte[] bytes = SafetensorsBytes.File(json, good[(8 + header)..]);
        return random.Next(4) == 0 ? Damaged(bytes, random) : bytes;
    }

    private static byte[] Damaged(byte[] good, Random random)
    {
        byte[] bytes = (byte[])good.Clone();
        switch (random.Next(8))
        {
            case 0: // some bits
                for (int times = random.Next(1, 9); times > 0; times--) bytes[random.Next(bytes.Length)] ^= (byte)(1 << random.Next(8));
                return bytes;
            case 1: // a byte
                bytes[random.Next(bytes.Length)] = (byte)random.Next(256);
                return bytes;
            case 2: // cut
                return bytes[..random.Next(bytes.Length)];
            case 3: // longer
                return [.. bytes, .. new byte[random.Next(1, 20)]];
            case 4: // something in between
                byte[] inserted = new byte[random.Next(1, 20)];
                random.NextBytes(inserted);
                int at = random.Next(bytes.Length);
                return [.. bytes[..at], .. inserted, .. bytes[at..]];
            case 5: // something left out
                int from = random.Next(bytes.Length);
                return [.. bytes[..from], .. bytes[Math.Min(bytes.Length, from + random.Next(1, 20))..]];
            case 6: // a piece copied elsewhere
                int size = random.Next(1, Math.Min(20, bytes.Length));
                Array.Copy(good, random.Next(good.Length - size), bytes, random.Next(good.Length - size), size);
                return bytes;
            default: // the header's length
                ulong[] lengths = [0, 1, 2, (ulong)random.Next(bytes.Length), (ulong)bytes.Length - 8, (ulong)bytes.Length, 99_999_999, 100_000_001, int.MaxValue, uint.MaxValue, long.MaxValue, 1UL << 63, ulong.MaxValue];
                if (bytes.Length >= 8) BinaryPrimitives.WriteUInt64LittleEndian(bytes, lengths[random.Next(lengths.Length)]);
                return bytes;
        }
    }

    private static string Edited(string json, Random random) => random.Next(7) switch
    {
        0 or 1 => Replace(json, random, char.IsAsciiDigit, Numbers[random.Next(Numbers.Length)]), // offsets and sizes
        2 => Replace(json, random, c => char.IsAsciiLetterUpper(c) || c == '_' || char.IsAsciiDigit(c), Types[random.Next(Types.Length)]),
        3 => Repeated(json, random),
        4 => Swapped(json, random),
        5 => json.Insert(random.Next(json.Length + 1), (string[])["[", "{", "]", "}", ",", ":", "\"", "\\ud800", "\\u0000", "\ud83d\ude00", new string('[', 5000), "\"__metadata__\":{},", "\"shape\":[0],", "\u0000"] is var parts ? parts[random.Next(parts.Length)] : ""),
        _ => Replace(json, random, char.IsAsciiLetterLower, ((string[])["dtype", "shape", "data_offsets", "__metadata__", "a", "weight_map", "../a", "/dev/zero", "a/b", ""]) is var words ? words[random.Next(words.Length)] : ""),
    };

    // A run of such characters, chosen by chance, becomes another text.
    private static string Replace(string json, Random random, Func<char, bool> belongs, string text)
    {
        List<(int From, int To)> runs = [];
        for (int i = 0; i < json.Length; i++)
        {
            if (!belongs(json[i])) continue;
            int from = i;
            while (i < json.Length && belongs(json[i])) i++;
            runs.Add((from, i));
        }
        if (runs.Count == 0) return json;
        (int start, int end) = runs[random.Next(runs.Count)];
        return json[..start] + text + json[end..];
    }

    // A member of an object is there twice.
    private static string Repeated(string json, Random random)
    {
        int[] commas = [.. Enumerable.Range(0, json.Length).Where(i => json[i] is ',' or '{')];
        if (commas.Length < 2) return json;
        int which = random.Next(commas.Length - 1), end = commas[random.Next(which + 1, commas.Length)];
        return json[..commas[which]] + json[commas[which]..end] + json[commas[which]..];
    }

    private static string Swapped(string json, Random random)
    {
        int[] digits = [.. Enumerable.Range(0, json.Length).Where(i => char.IsAsciiDigit(json[i]))];
        if (digits.Length < 2) return json;
        StringBuilder changed = new(json);
        (int one, int other) = (digits[random.Next(digits.Length)], digits[random.Next(digits.Length)]);
        (changed[one], changed[other]) = (changed[other], changed[one]);
        return changed.ToString();
    }
}
