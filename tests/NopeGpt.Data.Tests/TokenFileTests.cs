using System.Buffers.Binary;
using NopeGpt.Tests;
using Xunit.Abstractions;

namespace NopeGpt.Data.Tests;

public sealed class TokenFileTests(ITestOutputHelper output)
{
    private const int HeaderBytes = 192;

    [Theory]
    [InlineData(300, 2)]
    [InlineData(65_536, 2)]
    [InlineData(65_537, 4)]
    [InlineData(int.MaxValue, 4)]
    public void What_was_written_is_read_at_both_widths(int vocabulary, int width)
    {
        using TemporaryFolder folder = new();
        int seed = Environment.TickCount;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        int[][] documents = [.. Enumerable.Range(0, 200).Select(_ => Enumerable.Range(0, random.Next(200)).Select(_ => random.Next(vocabulary)).ToArray())];
        documents[0] = [vocabulary - 1, 0, 1];
        Write(folder["a.tokens"], vocabulary, documents);
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        int[] all = [.. documents.SelectMany(document => document)];
        Assert.Equal((all.Length, vocabulary, "abc", documents.Length, 7L * documents.Length), (file.Count, file.VocabularySize, file.TokenizerHash, file.DocumentCount, file.TextBytes));
        Assert.Equal(folder["a.tokens"], file.Path);
        long padded = (HeaderBytes + (all.Length * width) + 7) / 8 * 8;
        Assert.Equal(padded + (8 * documents.Length), new FileInfo(folder["a.tokens"]).Length);
        file.Verify();
        int[] read = new int[all.Length];
        file.Read(0, read);
        Assert.Equal(all, read);
        for (int i = 0; i < 100; i++)
        {
            int offset = random.Next(all.Length), length = random.Next(all.Length - offset + 1);
            int[] part = new int[length];
            file.Read(offset, part);
            Assert.Equal(all[offset..(offset + length)], part);
        }
    }

    [Fact]
    public void Every_position_has_its_document_and_empty_documents_have_none()
    {
        using TemporaryFolder folder = new();
        int[][] documents = [[], [1, 2, 3], [], [], [4], [5, 6], []];
        Write(folder["a.tokens"], 10, documents);
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        Assert.Equal([1, 1, 1, 4, 5, 5], Enumerable.Range(0, 6).Select(position => file.DocumentAt(position)));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.DocumentAt(6));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.DocumentAt(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(4, new int[3]));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(-1, new int[1]));
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(long.MaxValue, new int[1]));
    }

    [Fact]
    public void An_empty_token_file_is_a_token_file()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, []);
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        file.Verify();
        Assert.Equal((0, 0), (file.Count, file.DocumentCount));
    }

    [Fact]
    public void The_same_documents_give_the_same_file()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[1, 2], [3]]);
        Write(folder["b.tokens"], 10, [[1, 2], [3]]);
        Assert.Equal(File.ReadAllBytes(folder["a.tokens"]), File.ReadAllBytes(folder["b.tokens"]));
    }

    [Fact]
    public void Without_complete_there_is_no_file_and_an_old_one_stays()
    {
        using TemporaryFolder folder = new();
        using (TokenFileWriter writer = new(folder["a.tokens"], 10, "abc")) writer.Append([1, 2], 3);
        Assert.Empty(Directory.GetFiles(folder.Path));
        Write(folder["a.tokens"], 10, [[1]]);
        using (TokenFileWriter writer = new(folder["a.tokens"], 10, "abc")) writer.Append([1, 2], 3);
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        Assert.Equal(1, file.Count);
        Assert.Single(Directory.GetFiles(folder.Path));
    }

    [Fact]
    public void Ids_beyond_the_vocabulary_and_late_documents_are_refused()
    {
        using TemporaryFolder folder = new();
        using TokenFileWriter writer = new(folder["a.tokens"], 10, "abc");
        writer.Append([9], 1);
        Assert.Contains("id 10 of document 1", Assert.Throws<ArgumentException>(() => writer.Append([1, 10], 1)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => writer.Append([-1], 1));
        writer.Complete();
        Assert.Throws<InvalidOperationException>(() => writer.Append([1], 1));
        Assert.Throws<InvalidOperationException>(writer.Complete);
        Assert.Throws<ArgumentException>(() => new TokenFileWriter(folder["b.tokens"], 10, new string('a', 65)));
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        Assert.Equal(1, file.Count);
    }

    [Fact]
    public void A_missing_file_is_named() =>
        Assert.Contains("/nowhere/a.tokens does not exist", Assert.Throws<FileNotFoundException>(() => TokenFile.Open("/nowhere/a.tokens")).Message, StringComparison.Ordinal);

    [Fact]
    public void A_file_cut_anywhere_or_with_bytes_added_is_refused()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[1, 2, 3], [4, 5]]);
        byte[] whole = File.ReadAllBytes(folder["a.tokens"]);
        for (int length = 0; length < whole.Length; length++) Refused(whole[..length], "");
        Refused([.. whole, 0], "bytes instead of");
    }

    [Fact]
    public void Wrong_magic_version_width_and_index_are_named()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[1, 2, 3], [4, 5]]);
        byte[] whole = File.ReadAllBytes(folder["a.tokens"]);
        Refused(Changed(whole, 0, (byte)'X'), "not a token file");
        Refused(Changed(whole, 8, 9), "format version 9");
        Refused(Changed(whole, 16, 4), "contradicts itself");
        Refused(Changed(whole, 23, 0x80), "contradicts itself");
        Refused(Changed(whole, 31, 0x7f), "contradicts itself");
        Refused(Changed(whole, 39, 0x7f), "contradicts itself");
        Refused(Changed(whole, whole.Length - 16, 1), "does not start at its first token");
        Refused(Changed(whole, whole.Length - 8, 6), "not in order");
        Refused(Changed(whole, whole.Length - 1, 0xff), "not in order");
    }

    [Fact]
    public void Any_changed_byte_is_found_by_opening_or_by_the_checksum()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[1, 2, 3], [4, 5]]);
        byte[] whole = File.ReadAllBytes(folder["a.tokens"]);
        for (int at = 0; at < whole.Length; at++)
        {
            byte[] changed = Changed(whole, at, (byte)(whole[at] ^ 0x40));
            string path = Save(folder, changed);
            string message = Assert.Throws<InvalidDataException>(() =>
            {
                using TokenFile file = TokenFile.Open(path);
                file.Verify();
            }).Message;
            Assert.Contains("prepare it again", message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void An_id_beyond_the_vocabulary_under_a_right_checksum_is_found()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[1, 2, 3]]);
        byte[] bytes = File.ReadAllBytes(folder["a.tokens"]);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(HeaderBytes), 10);
        bytes.AsSpan(112, 32).Clear();
        byte[] checksum = System.Security.Cryptography.SHA256.HashData([.. bytes[HeaderBytes..], .. bytes[..HeaderBytes]]);
        checksum.CopyTo(bytes, 112);
        using TokenFile file = TokenFile.Open(Save(folder, bytes));
        Assert.Contains("the id 10", Assert.Throws<InvalidDataException>(file.Verify).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Reading_after_dispose_is_refused_and_the_file_can_be_replaced_while_open()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[1, 2, 3]]);
        TokenFile file = TokenFile.Open(folder["a.tokens"]);
        Write(folder["a.tokens"], 10, [[7]]);
        int[] ids = new int[3];
        file.Read(0, ids);
        Assert.Equal([1, 2, 3], ids);
        file.Dispose();
        Assert.Throws<ObjectDisposedException>(() => file.Read(0, ids));
    }

    [Theory]
    [InlineData(EndOfText.After)]
    [InlineData(EndOfText.Before)]
    [InlineData(EndOfText.None)]
    public void The_place_of_end_of_text_is_kept(EndOfText place)
    {
        using TemporaryFolder folder = new();
        using (TokenFileWriter writer = new(folder["a.tokens"], 10, "abc", place))
        {
            writer.Append([1], 1);
            writer.Complete();
        }
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        file.Verify();
        Assert.Equal(place, file.EndOfText);
        byte[] bytes = File.ReadAllBytes(folder["a.tokens"]);
        Refused(Changed(bytes, 144, 3), "contradicts itself");
        Refused(Changed(bytes, 191, 1), "contradicts itself");
    }

    [Fact]
    public void A_raw_file_of_ids_of_two_bytes_is_read()
    {
        using TemporaryFolder folder = new();
        ushort[] ids = [.. Enumerable.Range(0, 10_000).Select(i => (ushort)(i * 5))];
        File.WriteAllBytes(folder["train.bin"], System.Runtime.InteropServices.MemoryMarshal.AsBytes(ids.AsSpan()));
        using TokenFile file = TokenFile.OpenRaw(folder["train.bin"], 50_257, "abc");
        file.Verify();
        Assert.Equal((10_000, 50_257, "abc", 1, true, EndOfText.None), (file.Count, file.VocabularySize, file.TokenizerHash, file.DocumentCount, file.IsRaw, file.EndOfText));
        int[] read = new int[10_000];
        file.Read(0, read);
        Assert.Equal(ids.Select(id => (int)id), read);
        Assert.Equal((0, (0, 10_000)), (file.DocumentAt(9_999), file.Document(0)));
        Batch batch = new BatchSource(file, new BatchOptions { BatchSize = 4, TokensPerSample = 100, Packed = false }).Training(3);
        Assert.Equal(batch.Tokens[1..100], batch.Targets[..99]);
    }

    [Fact]
    public void A_raw_file_that_cannot_be_one_is_refused_with_the_cure()
    {
        using TemporaryFolder folder = new();
        File.WriteAllBytes(folder["odd.bin"], [1, 0, 2]);
        Assert.Contains("it has 3 bytes, an odd number", Assert.Throws<InvalidDataException>(() => TokenFile.OpenRaw(folder["odd.bin"], 10, "abc")).Message, StringComparison.Ordinal);
        Write(folder["a.tokens"], 10, [[1]]);
        Assert.Contains("with a header", Assert.Throws<InvalidDataException>(() => TokenFile.OpenRaw(folder["a.tokens"], 10, "abc")).Message, StringComparison.Ordinal);
        File.WriteAllBytes(folder["great.bin"], [1, 0, 10, 0]);
        using TokenFile file = TokenFile.OpenRaw(folder["great.bin"], 10, "abc");
        string message = Assert.Throws<InvalidDataException>(() => file.Read(0, new int[2])).Message;
        Assert.Contains("its token 1 (document 0) is the id 10, which is not in its vocabulary of 10 tokens; give the vocabulary", message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => TokenFile.OpenRaw(folder["great.bin"], 65_537, "abc"));
        Assert.Throws<ArgumentException>(() => TokenFile.OpenRaw(folder["great.bin"], 0, "abc"));
        Assert.Throws<FileNotFoundException>(() => TokenFile.OpenRaw(folder["none.bin"], 10, "abc"));
        File.WriteAllBytes(folder["empty.bin"], []);
        using TokenFile empty = TokenFile.OpenRaw(folder["empty.bin"], 10, "abc");
        Assert.Equal((0, 0), (empty.Count, empty.DocumentCount));
    }

    [Fact]
    public void An_id_beyond_the_vocabulary_is_named_with_its_document_wherever_it_is_read()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[1, 2, 3], [4, 5, 6]]);
        byte[] bytes = File.ReadAllBytes(folder["a.tokens"]);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes.AsSpan(HeaderBytes + 8), 700);
        using TokenFile file = TokenFile.Open(Save(folder, bytes));
        file.Read(0, new int[4]);
        string message = Assert.Throws<InvalidDataException>(() => new BatchSource(file, 1, 5, 1, 0).Training(0)).Message;
        Assert.Contains("its token 4 (document 1) is the id 700", message, StringComparison.Ordinal);
        Assert.Contains("prepare it again", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Another_tokenizer_is_named_with_the_file_and_the_cure()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[1]]);
        Tokenization.Tokenizer tokenizer = Tokenization.BytePairTrainer.Train(["a a a"], 257);
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        string message = Assert.Throws<InvalidDataException>(() => file.CheckTokenizer(tokenizer, "the model m")).Message;
        Assert.Contains(folder["a.tokens"], message, StringComparison.Ordinal);
        Assert.Contains("the model m", message, StringComparison.Ordinal);
        Assert.Contains("prepare the data again with this one", message, StringComparison.Ordinal);
        using (TokenFileWriter writer = new(folder["b.tokens"], tokenizer.VocabularySize, tokenizer.Hash)) writer.Complete();
        using TokenFile right = TokenFile.Open(folder["b.tokens"]);
        right.CheckTokenizer(tokenizer, "the model m");
    }

    [Fact]
    public void A_file_that_becomes_shorter_while_it_is_read_is_an_error_and_not_the_end_of_the_process()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [[.. Enumerable.Repeat(1, 100_000)]]);
        using TokenFile file = TokenFile.Open(folder["a.tokens"]);
        using (FileStream stream = new(folder["a.tokens"], FileMode.Open, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete)) stream.SetLength(1000);
        Assert.Contains("has become shorter", Assert.Throws<InvalidDataException>(() => file.Read(50_000, new int[1000])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_damaged_index_of_many_documents_is_found_where_it_is_used()
    {
        using TemporaryFolder folder = new();
        Write(folder["a.tokens"], 10, [.. Enumerable.Range(0, 70_000).Select(_ => new[] { 1 })]);
        byte[] bytes = File.ReadAllBytes(folder["a.tokens"]);
        bytes[^80_001] = 0x55;
        using TokenFile file = TokenFile.Open(Save(folder, bytes));
        Assert.Throws<InvalidDataException>(() => new BatchSource(file, new BatchOptions { Packed = false }));
        Assert.Throws<InvalidDataException>(file.Verify);
        Assert.Throws<InvalidDataException>(() => Enumerable.Range(59_000, 2_000).Select(i => file.Document(i)).ToArray());
    }

    [Fact]
    public void Ten_thousand_mutated_files_are_refused_or_read_without_harm()
    {
        using TemporaryFolder folder = TemporaryFolder.InMemory();
        int seed = Environment.TickCount, refused = 0;
        output.WriteLine($"seed {seed}");
        Random random = new(seed);
        Write(folder["narrow.tokens"], 300, [.. Enumerable.Range(0, 9).Select(_ => Enumerable.Range(0, random.Next(20)).Select(_ => random.Next(300)).ToArray())]);
        Write(folder["wide.tokens"], 70_000, [.. Enumerable.Range(0, 9).Select(_ => Enumerable.Range(0, random.Next(20)).Select(_ => random.Next(70_000)).ToArray())]);
        byte[][] whole = [File.ReadAllBytes(folder["narrow.tokens"]), File.ReadAllBytes(folder["wide.tokens"])];
        int[][] right = [.. whole.Select(bytes => Everything(Save(folder, bytes))!)];
        long allocated = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 10_000; i++)
        {
            int[]? read = Everything(Save(folder, Mutated(whole[i % 2], random)));
            if (read is null) refused++;
            else Assert.Equal(right[i % 2], read);
        }
        Assert.InRange(refused, 5_000, 10_000);
        // No size in a damaged header is believed.
        Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - allocated, 0, 10_000L * 100_000);
    }

    /// <summary>All ids of a file that opens and verifies; null when it is refused with a message that has file and cure.</summary>
    private static int[]? Everything(string path)
    {
        try
        {
            using TokenFile file = TokenFile.Open(path);
            try { _ = new BatchSource(file, new BatchOptions { TokensPerSample = 3, Packed = false }).Training(5); }
            catch (ArgumentException e) when (e.Message.Contains("samples of 3 tokens", StringComparison.Ordinal)) { }
            file.Verify();
            int[] ids = new int[file.Count];
            file.Read(0, ids);
            return ids;
        }
        catch (InvalidDataException e)
        {
            Assert.Contains(path, e.Message, StringComparison.Ordinal);
            Assert.Contains("prepare it again", e.Message, StringComparison.Ordinal);
            return null;
        }
    }

    private static byte[] Mutated(byte[] whole, Random random)
    {
        byte[] bytes = [.. whole];
        for (int changes = random.Next(1, 4); changes > 0 && bytes.Length > 0; changes--)
        {
            int at = random.Next(2) == 0 ? random.Next(Math.Min(bytes.Length, HeaderBytes)) : random.Next(bytes.Length);
            switch (random.Next(5))
            {
                case 0: bytes[at] = (byte)random.Next(256); break;
                case 1: bytes[at] ^= (byte)(1 << random.Next(8)); break;
                case 2: bytes = bytes[..at]; break;
                case 3: bytes = [.. bytes[..at], .. Enumerable.Range(0, random.Next(20)).Select(_ => (byte)random.Next(256)), .. bytes[at..]]; break;
                case 4 when bytes.Length >= 8: BinaryPrimitives.WriteInt64LittleEndian(bytes.AsSpan(Math.Min(at, bytes.Length - 8)), random.NextInt64() >> random.Next(64)); break;
            }
        }
        return bytes;
    }

    internal static void Write(string path, int vocabulary, int[][] documents)
    {
        using TokenFileWriter writer = new(path, vocabulary, "abc");
        foreach (int[] document in documents) writer.Append(document, 7);
        writer.Complete();
    }

    private static void Refused(byte[] bytes, string reason)
    {
        using TemporaryFolder folder = new();
        string path = Save(folder, bytes);
        string message = Assert.Throws<InvalidDataException>(() => TokenFile.Open(path)).Message;
        Assert.Contains(reason, message, StringComparison.Ordinal);
        Assert.Contains(path, message, StringComparison.Ordinal);
        Assert.Contains("prepare it again", message, StringComparison.Ordinal);
    }

    private static string Save(TemporaryFolder folder, byte[] bytes)
    {
        string path = folder["changed.tokens"];
        File.WriteAllBytes(path, bytes);
        return path;
    }

    private static byte[] Changed(byte[] bytes, int at, byte value)
    {
        byte[] changed = [.. bytes];
        changed[at] = value;
        return changed;
    }
}
