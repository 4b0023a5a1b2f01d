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
        // The zeros after the checksum are not read.
        for (int at = 0; at < whole.Length; at++)
        {
            if (at is >= 144 and < HeaderBytes) continue;
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
